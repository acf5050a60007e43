"""inspect_ai's logs, ``.eval`` and ``.json``, by its own reader.

The confidence is ``confidence`` in the metadata of the score, as graders of stated confidence log it, else the
probability of the answer's tokens, which are there where the model was run with ``logprobs=True``.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results.forms.form import About, Form, NoConfidenceError, Sample, at, digest, shares, stated

_OUTCOMES = {"C": 1, "I": 0, "N": 0, "yes": 1, "no": 0, "true": 1, "false": 0}
"""Values of scores; "P" (partly right) and others are neither."""


class Inspect(Form):
    """Logs of ended runs; with several scorers each has a task of its own, ``<task>/<scorer>``."""

    name = "a log of inspect_ai"

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether a file is an archive ``.eval``, or JSON that begins as such a log."""
        is_json = path.suffix == ".json" and re.match(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:', head)
        return bool(is_json) or path.suffix == ".eval"

    def about(self, path: Path) -> About:
        """Return model and task of the log's head."""
        head = _read(path, header_only=True)
        if head.status != "success":
            raise ValueError(f"{path}: the run has not ended well (its status is {head.status!r})")
        time = str(head.eval.created).partition("+")[0].replace(":", "-")
        scorers = list(dict.fromkeys(score.name for score in (head.results.scores if head.results else ())))
        task = str(head.eval.task)
        return About(str(head.eval.model), [f"{task}/{one}" for one in scorers] if scorers[1:] else [task], time)

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the samples; raise ValueError naming the sample."""
        log = _read(path)
        samples: Sequence[Any] = log.samples or ()
        scorer = task.removeprefix(f"{log.eval.task}/") if task != log.eval.task else None
        scores = [_score(sample, scorer) for sample in samples]
        where = [f"{path}, sample {sample.id}" for sample in samples]
        told = [((None if score is None else score.metadata) or {}).get("confidence") for score in scores]
        confidences = shares(list(map(stated, where, told)))
        if all(value is None for value in confidences):
            confidences = [_of_tokens(sample) for sample in samples]
        if all(value is None for value in confidences):
            raise NoConfidenceError(
                f"{path}: no confidence: neither `confidence` in the metadata of scores nor log-probabilities of "
                "tokens, which inspect_ai logs with --logprobs"
            )
        has_epochs = any(sample.epoch > 1 for sample in samples)
        for row, (sample, score, confidence) in enumerate(zip(samples, scores, confidences, strict=True)):
            text = _text(sample.input)
            numbers: dict[str, Any] = {"confidence": confidence, "correct": _outcome(score)}
            numbers["cluster"] = digest([sample.id, text])[:16] if has_epochs else None
            line = {
                "doc": {"id": sample.id, "input": text, "choices": sample.choices, "metadata": sample.metadata},
                "target": sample.target,
                "arguments": [[text, None]],
                "resps": [[sample.output.completion if sample.output else None]],
            }
            with at(where[row]):
                yield self.sample(task, row, [text, sample.choices, sample.target, sample.epoch], numbers, line)


def _read(path: Path, **options: Any) -> Any:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise UserError(f"{path}: a log of inspect_ai, which its own reader opens: pip install inspect_ai") from error
    try:
        return read_eval_log(str(path), **options)
    except Exception as error:  # of zip files, JSON or a schema, as the reader meets them
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: inspect_ai can't read it ({type(error).__name__}: {text:.200})") from error


def _score(sample: Any, scorer: str | None) -> Any:
    scores = sample.scores or {}
    return scores.get(scorer) if scorer is not None else next(iter(scores.values()), None)


def _of_tokens(sample: Any) -> float | None:
    """Probability of the answer as it was written; None where no probabilities were logged."""
    choices = sample.output.choices if sample.output else ()
    content = choices[0].logprobs.content if choices and choices[0].logprobs else ()
    return min(1.0, math.exp(sum(token.logprob for token in content))) if content else None


def _outcome(score: Any) -> int | None:
    value = None if score is None else score.value
    if isinstance(value, str):
        return _OUTCOMES.get(value, _OUTCOMES.get(value.lower()))
    return int(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def _text(messages: Any) -> str:
    """A question as text: that of a sample, or the user's messages."""
    if isinstance(messages, str):
        return messages
    return "\n".join(message.text for message in messages if message.role == "user")


FORM = Inspect()
