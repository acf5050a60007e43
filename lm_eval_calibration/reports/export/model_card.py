"""A Hugging Face model card's ``model-index``, by ``huggingface_hub``'s own classes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.reports.values import Value
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.columns import title

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

DIGITS = 6

SETTINGS = ("harness_task", "task_version", "num_few_shot", "chat_template", "n_bins", "definitions")
"""Arguments of a metric that say what it is of."""


def eval_results(run: Run, found: Iterable[Value]) -> "list[EvalResult]":
    """Results as the Hub knows them; undefined ones are left out.

    What a value is of (task, shots, template, bins) and how sure it is stand in the metric's arguments. The data set's
    are no place for it: a card has these once for all results of a data set.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=_dataset(run, value)[0],
            dataset_name=value.scope,
            dataset_config=_dataset(run, value)[1],
            dataset_split=run.configuration.split_of(value.tasks[0]),
            metric_type=value.metric,
            metric_name=title(value.metric),
            metric_value=round(value.measured.value, DIGITS),
            metric_args=_settings(run, value) | _certainty(value),
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

    A result that this command wrote before of the same task, settings and metric is replaced; all else stays.

    Raises:
        UserError: the card can't be read, or its metadata are broken.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        card = ModelCard(readme.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{readme}: {error}") from error
    data: Any = card.data
    old, new = list(data.eval_results or []), eval_results(run, found)
    known = {_identity(result) for result in new}
    kept = [result for result in old if _identity(result) not in known]
    data.eval_results = [*kept, *new]
    data.model_name = data.model_name or name
    n_replaced = len(old) - len(kept)
    return str(card), len(new) - n_replaced, n_replaced


def _identity(result: "EvalResult") -> tuple[object, ...]:
    """What a result is of, without its value and how sure that is."""
    arguments = result.metric_args or {}
    return result.metric_type, *(arguments.get(key) for key in SETTINGS)


def _dataset(run: Run, value: Value) -> tuple[str, str | None]:
    """Name of the data set and of its configuration; those of the group where its tasks have several."""
    paths = {run.configuration.dataset_of(task)[0] for task in value.tasks}
    names = {run.configuration.dataset_of(task)[1] for task in value.tasks}
    path = paths.pop() if len(paths) == 1 else None
    return path or value.scope, names.pop() if len(names) == 1 else None


def _settings(run: Run, value: Value) -> dict[str, Any]:
    shots = {run.configuration.num_fewshot.get(task) for task in value.tasks}
    version = run.configuration.task_versions.get(value.scope)
    of_run = (value.scope, version, shots.pop() if len(shots) == 1 else None, bool(run.configuration.chat_template))
    return dict(zip(SETTINGS, (*of_run, run.n_bins, DEFINITION_VERSION), strict=True))


def _certainty(value: Value) -> dict[str, float | int]:
    m = value.measured
    numbers = {"stderr": m.stderr, "interval_95_low": m.low, "interval_95_high": m.high}
    return {**{key: round(x, DIGITS) for key, x in numbers.items() if not math.isnan(x)}, "n_docs": m.n_docs}
