"""The metrics of the table: of the docs as asked, of the docs seen otherwise, and what tells how far to trust them.

Every row has a name of its own, a metric's name with a suffix, so that it is never mixed with the metric of ``acc``:

``_norm``: computed from log-likelihoods per character (what ``acc_norm`` chooses by).
``_permuted``: from choice probabilities averaged over several orders of the choices.
``_temperature``: after temperature scaling, each doc by a temperature fitted on others.
``_p_true``, ``_verbalized``: of what the model said when asked how sure it is of its answer, and whether that is right.
``_low``, ``_high``: ends of the metric's 95% interval.
``_null``, ``_p``: its mean were the model calibrated, and how likely a value as bad then is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from lm_eval_calibration.metrics import CATALOG, GENERATION_CATALOG, Metric
from lm_eval_calibration.records import AnswerRecord, ChoicesRecord, Doc, Record, ScoredAnswer
from lm_eval_calibration.tasks.options import Options
from lm_eval_calibration.tasks.temperature import at_fitted_temperatures, fitted_temperature

View = Callable[[Sequence[Record]], Iterable[Doc]]
"""How a metric sees docs."""

NORM, PERMUTED, SCALED = "_norm", "_permuted", "_temperature"
P_TRUE, VERBALIZED = "_p_true", "_verbalized"


def length_normalized(records: Sequence[Any]) -> Iterable[ChoicesRecord]:
    """Return the records as ``acc_norm`` sees them."""
    return map(ChoicesRecord.length_normalized, records)


def permuted(records: Sequence[Any]) -> Iterable[ChoicesRecord]:
    """Return the records with probabilities averaged over the orders of the choices."""
    return map(ChoicesRecord.permuted, records)


def asked(records: Sequence[Any], how: str) -> Iterable[ScoredAnswer]:
    """Return the docs with the confidence that the model stated when asked."""
    return (AnswerRecord.with_stated_confidence(record, how) for record in records)


_VIEWS: dict[str, View] = {NORM: length_normalized, PERMUTED: permuted, SCALED: at_fitted_temperatures}

ORDER_METRICS = {"acc_permuted": True, "position_spread": False, "answer_changes": False}
"""Means over docs that ``permute`` adds, and whether higher is better."""


@dataclass(frozen=True)
class Part:
    """A function that returns one number of several, such as the lower end of an interval."""

    whole: Callable[..., tuple[float, ...]]
    index: int

    def __call__(self, first: Any, second: Any, **options: Any) -> float:
        """Return the number for these arrays."""
        return float(self.whole(first, second, **options)[self.index])


class TableMetric(NamedTuple):
    """A metric under the name that the table shows.

    Attributes:
        metric: the metric.
        view: how it sees the docs; None: as they are.
        has_stderr: whether the table shows a standard error beside it.
    """

    metric: Metric
    view: View | None = None
    has_stderr: bool = True


def _seen(suffix: str) -> dict[str, TableMetric]:
    of_choices = [metric for metric in CATALOG.values() if metric.kind in ("top_label", "choices")]
    names = {f"{metric.name}{suffix}": metric for metric in of_choices}
    return {name: TableMetric(replace(metric, name=name), _VIEWS[suffix]) for name, metric in names.items()}


def trust_rows(catalog: Mapping[str, Metric], view: View | None = None) -> dict[str, TableMetric]:
    """Return a row for each number of the interval and of the null of every metric that has one, by name.

    Args:
        catalog: metrics by name.
        view: how they see the docs; None: as they are.
    """
    return {
        f"{name}{suffix}": TableMetric(
            replace(metric, name=f"{name}{suffix}", value=Part(getattr(metric, whole), index), higher_is_better=None),
            view,
            has_stderr=False,
        )
        for suffix, (whole, index) in (_INTERVAL | _NULL).items()
        for name, metric in catalog.items()
        if getattr(metric, whole) is not None
    }


def trust_suffixes(options: Options) -> list[str]:
    """Return the ends of the names of those of these rows that are asked for."""
    return [*(_INTERVAL if options.intervals else ()), *(_NULL if options.nulls else ())]


_INTERVAL = {"_low": ("interval", 0), "_high": ("interval", 1)}
_NULL = {"_null": ("null", 1), "_p": ("null", 3)}


def _asked(suffix: str) -> dict[str, TableMetric]:
    view = partial(asked, how=suffix[1:])
    of_one_confidence = [metric for metric in GENERATION_CATALOG.values() if metric.kind == "top_label"]
    catalog = {f"{m.name}{suffix}": replace(m, name=f"{m.name}{suffix}") for m in of_one_confidence}
    return {name: TableMetric(metric, view) for name, metric in catalog.items()} | trust_rows(catalog, view)


ASKED = _asked(P_TRUE) | _asked(VERBALIZED)
"""Metrics of one confidence a doc, whatever the docs are: ``ace`` has one class, and there is no ``brier_score``."""

TEMPERATURE = "temperature"

TABLE = {
    **{name: TableMetric(metric) for name, metric in CATALOG.items()},
    **{name: row for suffix in _VIEWS for name, row in _seen(suffix).items()},
    **trust_rows(CATALOG),
    **ASKED,
    TEMPERATURE: TableMetric(
        replace(CATALOG["nll"], name=TEMPERATURE, value=fitted_temperature, higher_is_better=None), has_stderr=False
    ),
}
"""Every metric that a table can show, by name."""


def asked_rows(names: Iterable[str], options: Options) -> list[str]:
    """Return the metrics of what the model says when asked, for these of its plain confidence."""
    suffixes = [suffix for suffix, wanted in ((P_TRUE, options.p_true), (VERBALIZED, options.verbalized)) if wanted]
    of_one_confidence = ["brier_top_label" if name == "brier_score" else name for name in names]
    rows = [name + suffix for suffix in suffixes for name in of_one_confidence if name + suffix in ASKED]
    rows += [row + suffix for suffix in trust_suffixes(options) for row in rows if row + suffix in ASKED]
    return list(dict.fromkeys(rows))


def with_views(names: Iterable[str], options: Options) -> list[str]:
    """Return the metrics, and after them the rows beside them that the options ask for."""
    plain = list(names)
    asked = {
        NORM: options.confidence == "length_normalized",
        PERMUTED: options.permute > 0,
        SCALED: options.temperature,
    }
    suffixes = [*trust_suffixes(options), *(suffix for suffix, wanted in asked.items() if wanted)]
    rows = [name + suffix for suffix in suffixes for name in plain if name + suffix in TABLE]
    return [*plain, *([TEMPERATURE] if options.temperature else []), *rows, *asked_rows(plain, options)]
