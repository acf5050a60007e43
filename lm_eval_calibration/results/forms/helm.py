"""HELM's runs: ``per_instance_stats.json`` in a folder for each run, with ``run_spec.json`` and, for texts, others.

Texts are in ``instances.json`` and ``display_predictions.json``, which helm-summarize writes, or else in
``scenario_state.json``, which helm-run does. The confidence is ``max_prob``, the outcome ``exact_match``, as in HELM's
own ``ece_10_bin`` (bins of equal mass).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.records.jsonl import loads
from lm_eval_calibration.results.forms.form import About, Form, NoConfidenceError, Sample, at, digest, number

CONFIDENCE, CORRECT = "max_prob", "exact_match"
"""Names of the statistics."""

_TEST = "test"
_OF_THE_MODEL = re.compile(r"(?<=[,:])(model|model_deployment)=[^,]*,?")


class _Instance(NamedTuple):
    """An instance as it was answered after one choice of examples, with its statistics by name."""

    key: str
    trial: int
    stats: Mapping[str, float]


class Helm(Form):
    """Statistics of each instance; those of perturbed instances are left out, and splits but test are other tasks."""

    name = "HELM's per-instance stats"

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether a file is called as HELM calls it."""
        return path.name == "per_instance_stats.json"

    def about(self, path: Path) -> About:
        """Return model and scenario by ``run_spec.json``, or by the folder's name."""
        model, tasks = _read(path)
        return About(model, sorted(tasks))

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the instances of a split; raise ValueError naming the instance."""
        instances = _read(path)[1][task]
        if {one.stats.get(CONFIDENCE) for one in instances} == {1.0}:
            reasons = "the model gave no log-probabilities, or those after a temperature of 0"
            raise NoConfidenceError(f"{path}: {CONFIDENCE} is 1 of every instance: {reasons}")
        questions, answers = _texts(path)
        has_trials = any(one.trial for one in instances)
        for row, (key, trial, stats) in enumerate(instances):
            doc, target = questions.get(key, ({}, None))
            line = {
                "doc": {"instance_id": key, **doc},
                "target": target,
                "arguments": [[doc.get("text"), None]],
                "resps": [[answers.get((key, trial))]],
            }
            with at(f"{path}, instance {key}"):
                numbers: dict[str, Any] = {"confidence": stats.get(CONFIDENCE), "correct": _outcome(stats)}
                numbers["cluster"] = digest(key)[:16] if has_trials else None
                yield self.sample(task, row, [key, trial], numbers, line)


def _outcome(stats: Mapping[str, float]) -> int | None:
    """1 where the answer is right, as HELM rounds it: of several equally likely ones all must be."""
    if CORRECT not in stats or CONFIDENCE not in stats:
        missing = CORRECT if CORRECT not in stats else CONFIDENCE
        raise NoConfidenceError(f"no {missing!r} among its statistics; there are {', '.join(stats) or 'none'}")
    return int(stats[CORRECT])


def _read(path: Path) -> tuple[str, dict[str, list[_Instance]]]:
    """Return the model and the instances of each task."""
    spec = _json(path.with_name("run_spec.json")) or {}
    name = str(spec.get("name") or path.resolve().parent.name)
    in_name = re.search(r"[,:]model=([^,]*)", name)
    model = (spec.get("adapter_spec") or {}).get("model") or (in_name.group(1) if in_name else "unknown model")
    task = _OF_THE_MODEL.sub("", name).rstrip(",:")
    tasks: dict[str, list[_Instance]] = {}
    for i, entry in enumerate(_json(path, is_needed=True)):
        try:
            if entry.get("perturbation"):
                continue
            found = {stat["name"]["name"]: stat for stat in entry["stats"]}
            stats = {name: number(name, stat["mean"]) for name, stat in found.items() if stat.get("mean") is not None}
            splits = {stat["name"].get("split") for stat in found.values()} - {None, _TEST}
            key = f"{task}{',' if ':' in task else ':'}split={splits.pop()}" if splits else task
            one = _Instance(str(entry["instance_id"]), int(entry.get("train_trial_index") or 0), stats)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}, entry {i + 1}: {type(error).__name__} {error}") from error
        tasks.setdefault(key, []).append(one)
    return str(model), tasks


def _texts(path: Path) -> tuple[dict[str, tuple[dict[str, Any], str | None]], dict[tuple[str, int], str]]:
    """Text and right answer of each instance, and what the model wrote, as far as they are there."""
    states: Any = ()
    instances, shown = (_json(path.with_name(name)) for name in ("instances.json", "display_predictions.json"))
    where = path.with_name("instances.json")
    try:
        if instances is None:
            where = path.with_name("scenario_state.json")
            states = (_json(where) or {}).get("request_states") or ()
            states = [one for one in states if not one["instance"].get("perturbation")]
            instances = [one["instance"] for one in states]
        questions = {str(one.get("id")): _question(one) for one in instances}
        answers = {_key(one): one.get("predicted_text") for one in shown or () if not one.get("perturbation")}
        for one in states:
            if one.get("reference_index") is None and (one.get("result") or {}).get("completions"):
                said = max(one["result"]["completions"], key=lambda completion: completion["logprob"])["text"]
                answers.setdefault(_key({**one, "instance_id": one["instance"]["id"]}), said)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {type(error).__name__} {error}: not as HELM writes it") from error
    return questions, answers


def _question(one: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    right = [ref["output"]["text"] for ref in one.get("references") or () if "correct" in (ref.get("tags") or ())]
    return {"text": (one.get("input") or {}).get("text"), "sub_split": one.get("sub_split")}, next(iter(right), None)


def _key(one: Mapping[str, Any]) -> tuple[str, int]:
    return str(one.get("instance_id")), int(one.get("train_trial_index") or 0)


def _json(path: Path, *, is_needed: bool = False) -> Any:
    if not is_needed and not path.is_file():
        return None
    try:
        found = loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict if path.name in ("run_spec.json", "scenario_state.json") else list):
        raise ValueError(f"{path}: not as HELM writes it")
    return found


FORM = Helm()
