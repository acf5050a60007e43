"""Every metric before and after recalibration, on the same docs, with an interval of the change."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from lm_eval_calibration.metrics import CATALOG, Metric
from lm_eval_calibration.metrics.validation import FloatArray
from lm_eval_calibration.recalibration.bias import largest_bias
from lm_eval_calibration.recalibration.docs import Forecasts
from lm_eval_calibration.recalibration.resampled import CONFIDENT, computable, resampled_metrics
from lm_eval_calibration.recalibration.shares import difference_interval, share_interval

_Z = 1.959963984540054


class Change(NamedTuple):
    """A metric before and after.

    Attributes:
        name: of the metric.
        before: its value on the model's forecasts.
        after: its value on the recalibrated ones.
        low: lower end of the 95% interval of after - before; nan where there is none, as of one doc.
        high: upper end.
        higher_is_better: None for ``overconfidence``, which is best at 0.
    """

    name: str
    before: float
    after: float
    low: float
    high: float
    higher_is_better: bool | None

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """Say better or worse where the interval leaves 0 out, else nothing."""
        if not (self.low > 0 or self.high < 0):
            return ""
        if self.higher_is_better is None:
            return "better" if abs(self.after) < abs(self.before) else "worse"
        return "better" if self.higher_is_better == (self.change > 0) else "worse"


def before_after(
    before: Forecasts,
    after: Forecasts,
    *,
    names: Collection[str] = tuple(CATALOG),
    n_bins: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> list[Change]:
    """Compare two forecasts of the same docs by every metric that both have; accuracy first.

    The interval is the change plus and minus 1.96 standard deviations of the change over bootstrap resamples of the
    docs (1,000; ``smece`` 100), both forecasts resampled alike. Maps are held fixed: what would have come of other
    docs to fit on is not in it. A binned error is too large by anything between nothing and its mean were the
    forecasts right (its null), so the interval of its change reaches further down by the null after, and further up
    by the null before; that makes it hold its level, and wide where docs are few. Not the bootstrap's percentiles:
    they have the bias twice. ``confident_error_rate`` often rests on few docs, none of them wrong; its interval is
    Newcombe's, of two shares.

    Args:
        before: of the docs.
        after: of the same docs in the same order.
        names: metrics to compare by.
        n_bins: bins of the binned metrics.
        draws: resamples.
        seed: of the resamples.

    Returns:
        One change a metric. ``full_ece`` is not among them: it judges tokens, which these maps leave alone.

    Raises:
        ValueError: not the same docs, or other answers.
    """
    if not np.array_equal(before.labels, after.labels) or not np.array_equal(before.correct, after.correct):
        raise ValueError("before and after are not forecasts of the same docs with the same answers")
    accuracy = float(before.correct.mean())
    metrics = [CATALOG[name] for name in names if all(computable(CATALOG[name], f) for f in (before, after))]
    names = {metric.name for metric in metrics}
    values = {m.name: (_value(m, before, n_bins), _value(m, after, n_bins)) for m in metrics}
    of_before = resampled_metrics(before, names, n_bins=n_bins, draws=draws, seed=seed)
    of_after = resampled_metrics(after, names, n_bins=n_bins, draws=draws, seed=seed)
    changes = [Change("acc", accuracy, accuracy, 0.0, 0.0, True)]
    for metric in metrics:
        one, other = values[metric.name]
        half = float("nan")
        if metric.name in of_before and len(before.labels) > 1:
            half = _Z * _sd(of_after[metric.name] - of_before[metric.name])
        low, high = other - one - half, other - one + half
        if half > 0 or one != other:  # else the forecasts are the same, and so are their biases
            low -= largest_bias(metric, after, n_bins=n_bins)
            high += largest_bias(metric, before, n_bins=n_bins)
        if metric.name == "confident_error_rate" and (half > 0 or one != other):
            low, high = difference_interval(_confident_errors(before), _confident_errors(after))
        changes.append(Change(metric.name, one, other, low, high, metric.higher_is_better))
    return changes


def _value(metric: Metric, forecasts: Forecasts, n_bins: int) -> float:
    arguments = forecasts.arguments(metric)
    assert arguments is not None  # computable() said so
    return float(metric.value(*arguments, **({"n_bins": n_bins} if metric.takes_n_bins else {})))


def _confident_errors(forecasts: Forecasts) -> tuple[float, float, float]:
    confident = forecasts.confidence >= CONFIDENT
    return share_interval(int((1 - forecasts.correct[confident]).sum()), int(confident.sum()))


def _sd(draws: FloatArray) -> float:
    defined = draws[~np.isnan(draws)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")
