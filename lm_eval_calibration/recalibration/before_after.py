"""Every metric before and after recalibration, on the same docs, with an interval of the change."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.metrics import CATALOG, Comparison, Metric, compare
from lm_eval_calibration.metrics.comparison import comparable
from lm_eval_calibration.recalibration.cross_fitting import CrossFit
from lm_eval_calibration.recalibration.docs import Docs, Forecasts
from lm_eval_calibration.recalibration.jackknife import widened, without_each_fold


class Change(NamedTuple):
    """A metric before and after.

    Attributes:
        name: of the metric.
        before: its value on the model's forecasts.
        after: its value on the recalibrated ones.
        low: lower end of the 95% interval of after - before; nan where there is none, as of one doc.
        high: upper end.
        higher_is_better: None for ``overconfidence``, which is best at 0.
        p_value: of no change, two-sided; nan where there is no interval, 1 where nothing changed.
        verdict: "better" or "worse" where the interval says so, else "".
    """

    name: str
    before: float
    after: float
    low: float
    high: float
    higher_is_better: bool | None
    p_value: float
    verdict: str = ""

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @classmethod
    def of(cls, name: str, found: Comparison) -> "Change":
        """From a comparison of after with before."""
        direction = CATALOG[name].higher_is_better if name in CATALOG else True
        return cls(name, found.a, found.b, found.low, found.high, direction, found.p_value, found.verdict)


def before_after(
    before: Forecasts,
    after: Forecasts,
    *,
    names: Collection[str] | None = None,
    n_bins: int = 10,
    seed: int = 0,
    refits: Sequence[tuple[Forecasts, Forecasts]] | None = None,
) -> list[Change]:
    """Compare two forecasts of the same docs by every metric that both have; accuracy first.

    The intervals are those of :func:`lm_eval_calibration.metrics.compare` for paired docs, which allow for the bias of
    binned errors: the interval is of the population's change, not around the printed one. Of one map, fitted on other
    docs, that is all. Of cross-fitted ones that would leave out what other docs to fit on would have given: with
    ``refits`` intervals and p-values have that, too (:mod:`~lm_eval_calibration.recalibration.jackknife`), and metrics
    of the docs' order have no interval.

    Args:
        before: of the docs, with their clusters.
        after: of the same docs in the same order.
        names: metrics to compare by; all of ``metrics.CATALOG`` if not given.
        n_bins: bins of the binned metrics.
        seed: of what is simulated.
        refits: of cross-fitted docs, before and after without each fold; None where one map was fitted on other docs.

    Returns:
        One change a metric. ``full_ece`` is not among them: it is about tokens, which these maps leave alone.

    Raises:
        ValueError: not the same docs, or other answers.
    """
    if not np.array_equal(before.labels, after.labels) or not np.array_equal(before.correct, after.correct):
        raise ValueError("before and after are not forecasts of the same docs with the same answers")
    accuracy = float(before.correct.mean())
    both = comparable(before.run, after.run)
    shared = [name for name in (CATALOG if names is None else names) if name in both]
    metrics = [CATALOG[name] for name in shared]
    changes = [Change("acc", accuracy, accuracy, 0.0, 0.0, True, 1.0)]
    if before.equals(after):
        return changes + [_unchanged(metric, before, n_bins) for metric in metrics]
    how: dict[str, Any] = {"n_bins": n_bins, "seed": seed, "cluster": before.cluster, "same_answers": True}
    found = compare(before.run, after.run, names=shared, **how)
    if refits is not None:
        found = {metric.name: widened(metric, found[metric.name], refits, n_bins) for metric in metrics}
    return changes + [Change.of(name, one) for name, one in found.items()]


def cross_fitted_changes(
    method: str,
    docs: Docs,
    crossed: CrossFit,
    *,
    names: Collection[str] | None = None,
    n_bins: int = 10,
    seed: int = 0,
) -> list[Change]:
    """Every metric before and after cross-fitting, with intervals that know that the maps were fitted.

    Args:
        method: that was cross-fitted.
        docs: that were.
        crossed: what came of it.
        names: as for :func:`before_after`.
        n_bins: bins of the binned metrics.
        seed: of what is simulated.
    """
    before = docs.forecasts
    refits = [(before.take(refit.rows), refit.forecasts) for refit in without_each_fold(method, docs, crossed)]
    return before_after(before, crossed.forecasts, names=names, n_bins=n_bins, seed=seed, refits=refits)


def _unchanged(metric: Metric, forecasts: Forecasts, n_bins: int) -> Change:
    value = float(forecasts.value(metric, n_bins))
    end = 0.0 if np.isfinite(value) else float("nan")
    return Change(metric.name, value, value, end, end, metric.higher_is_better, 1.0 + end)
