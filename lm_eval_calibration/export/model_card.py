"""A Hugging Face model card's ``model-index``, by ``huggingface_hub``'s own classes."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.export.values import Value
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.runs import Run
from lm_eval_calibration.runs.scopes import dataset_of, split_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

NAMES = {"acc": "Accuracy", "ece": "ECE", "ace": "ACE", "full_ece": "Full-ECE", "auroc": "AUROC"}
NAMES |= {"brier_score": "Brier score", "nll": "NLL"}
"""Names for people; others stand as they are."""

DIGITS = 6


def eval_results(run: Run, found: Iterable[Value]) -> "list[EvalResult]":
    """Results as the Hub knows them; undefined ones are left out.

    Standard error, interval and number of docs are the metric's arguments; shots are the data set's.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=_dataset(run, value)[0],
            dataset_name=value.scope,
            dataset_config=_dataset(run, value)[1],
            dataset_split=split_of(run, value.tasks[0]),
            dataset_args=_shots(run, value.tasks),
            metric_type=value.metric,
            metric_name=NAMES.get(value.metric, value.metric),
            metric_value=round(value.measured.value, DIGITS),
            metric_args=_arguments(run, value),
        )
        for value in found
        if not math.isnan(value.measured.value)
    ]


def model_card(run: Run, found: Iterable[Value], name: str) -> str:
    """Return the YAML block of a card with nothing but the results."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(model_name=name, eval_results=eval_results(run, found))
    return f"---\n{data.to_yaml()}\n---\n"


def merged(readme: Path, run: Run, found: Iterable[Value], name: str) -> tuple[str, int, int]:
    """Return the card with the results in it, how many are new, and how many replace older ones.

    A result of the same data, shots and metric is replaced; all else stays.

    Raises:
        UserError: the card can't be read, or its metadata are broken.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(readme.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{readme}: {error}") from error
    except Exception as error:  # a YAML error, of a package that is the hub library's business
        raise UserError(f"{readme}: its metadata are no sound YAML: {error}") from error
    old, new = list(card.data.eval_results or []), eval_results(run, found)
    known = {_identity(result) for result in new}
    kept = [result for result in old if _identity(result) not in known]
    card.data.eval_results = [*kept, *new]
    card.data.model_name = card.data.model_name or name
    n_replaced = len(old) - len(kept)
    return str(card), len(new) - n_replaced, n_replaced


def _identity(result: "EvalResult") -> str:
    """What a result is of: all but its value, and but how sure that is."""
    return repr(replace(result, metric_value=0, metric_args=None, verified=None, verify_token=None))


def _dataset(run: Run, value: Value) -> tuple[str, str | None]:
    """Name of the data set and of its configuration; those of the group where its tasks have several."""
    paths = {dataset_of(run, task)[0] for task in value.tasks}
    names = {dataset_of(run, task)[1] for task in value.tasks}
    path = paths.pop() if len(paths) == 1 else None
    return path or value.scope, names.pop() if len(names) == 1 else None


def _shots(run: Run, tasks: tuple[str, ...]) -> dict[str, int] | None:
    shots = {run.configuration.num_fewshot.get(task) for task in tasks}
    number = shots.pop() if len(shots) == 1 else None
    return None if number is None else {"num_few_shot": number}


def _arguments(run: Run, value: Value) -> dict[str, float | int]:
    m = value.measured
    numbers = {"stderr": m.stderr, "interval_95_low": m.low, "interval_95_high": m.high}
    known: dict[str, float | int] = {key: round(x, DIGITS) for key, x in numbers.items() if not math.isnan(x)}
    return {**known, "n_docs": m.n_docs, "n_bins": run.n_bins, "definitions": DEFINITION_VERSION}
