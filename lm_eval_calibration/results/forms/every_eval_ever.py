"""Every Eval Ever's docs: ``<uuid>_samples.jsonl`` (or packed) beside ``<uuid>.json``, schemas 0.2 and 0.3.

https://github.com/evaleval/every_eval_ever. Its schema has no confidence; what converters put into ``metadata`` counts:
``choice_logprobs`` (of ``input.choices``, a JSON list, as its lighteval converter writes it), or ``confidence``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.results.forms.form import About, Form, Sample, at, number, shares, stated
from lm_eval_calibration.results.names import parse

Line = Mapping[str, Any]


class EveryEvalEver(Form):
    """Instances, each evaluation of which is a task; of docs that several metrics scored the outcome must be one."""

    name = "Every Eval Ever"

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether a file of lines begins as instances do."""
        is_record = b'"schema_version"' in head and b'"evaluation_id"' in head
        return parse(path).suffix == ".jsonl" and is_record and not head.lstrip().startswith(b'{"doc_id"')

    def without_docs(self, path: Path, head: bytes) -> str:
        """An evaluation without its instances."""
        if path.suffix != ".json" or b'"schema_version"' not in head or b'"evaluation_' not in head:
            return ""
        return f"of Every Eval Ever; its docs are in {path.stem}_samples.jsonl, or in what its details name"

    def about(self, path: Path) -> About:
        """Return the model and the evaluations there are."""
        lines = [line for _, line in _lines(path)]
        models = list(dict.fromkeys(str(line["model_id"]) for line in lines))
        if len(models) > 1:
            raise ValueError(f"{path}: docs of several models ({', '.join(models[:5])})")
        return About(models[0] if models else "", list(dict.fromkeys(str(line["evaluation_name"]) for line in lines)))

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the docs of an evaluation; raise ValueError naming the line."""
        mine = [(where, line) for where, line in _lines(path) if str(line["evaluation_name"]) == task]
        confidences = shares([stated(where, (line.get("metadata") or {}).get("confidence")) for where, line in mine])
        seen: dict[Any, tuple[Any, Any]] = {}
        for row, ((where, line), confidence) in enumerate(zip(mine, confidences, strict=True)):
            with at(where, TypeError, KeyError, AttributeError):
                sample = self._sample(task, row, line, confidence)
            key, told = line["sample_id"], (sample.record.confidence, line["evaluation"]["is_correct"])
            if seen.setdefault((key, sample.record.doc_hash), told) != told:
                raise ValueError(f"{where}: sample {key} is scored by several metrics, which differ")
            if seen[key, sample.record.doc_hash] is told:
                yield sample

    def _sample(self, task: str, row: int, line: Line, confidence: float | None) -> Sample:
        said, metadata = line["input"], line.get("metadata") or {}
        correct, choices = line["evaluation"]["is_correct"], said.get("choices") or ()
        if not isinstance(correct, bool):
            raise ValueError(f"evaluation.is_correct is {correct!r:.60}, not true or false")
        numbers: dict[str, Any] = {"confidence": confidence, "correct": int(correct)}
        if confidence is None and metadata.get("choice_logprobs") is not None:
            logs = [number("choice_logprobs", value) for value in json.loads(metadata["choice_logprobs"])]
            golds = [choices.index(text) for text in said["reference"] if text in choices]
            if len(logs) != len(choices) or len(golds) != 1:
                raise ValueError(f"{len(logs)} choice_logprobs, {len(choices)} choices, {len(golds)} of them right")
            is_of_them = metadata.get("primary_metric", "acc") == "acc"  # another one may be length-normalised
            if is_of_them and (logs.index(max(logs)) == golds[0]) != correct:
                raise ValueError(f"is_correct is {correct}, but by choice_logprobs and reference it is not so")
            numbers = {"log_likelihoods": logs, "gold": golds[0]}
        elif confidence is None:
            raise ValueError(
                "no confidence: `metadata` has neither choice_logprobs nor confidence; give the logs it was made from"
            )
        raw, output = said.get("raw"), (line.get("output") or {}).get("raw") or [None]
        shown = {
            "doc": {"sample_id": line["sample_id"], "input": raw},
            "target": next(iter(said.get("reference") or ()), None),
            "arguments": [[raw, choice] for choice in choices or [None]],
            "resps": [[output[0]]],
        }
        return self.sample(task, row, [raw or line["sample_id"], said.get("reference")], numbers, shown)


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    """Each line with its place."""
    file = JsonLines(path)
    for first, lines in file.blocks():
        for place, line in enumerate(file.values(first, lines), first):
            needed = ("model_id", "evaluation_name", "sample_id", "input", "evaluation")
            missing = [key for key in needed if not isinstance(line, dict) or key not in line]
            if missing:
                raise ValueError(f"{file.where(place)}: no {missing[0]!r}, which Every Eval Ever's instances have")
            yield file.where(place), line


FORM = EveryEvalEver()
