"""Intervals of means over docs whose values depend on whether the answer is right.

Where few answers are wrong (or few are right) most of a mean's variance comes from docs that happen not to be there:
30 right answers of a model that says 0.99 have losses of almost no spread. So the mean is taken apart,
value_i = rest_i + kappa wrong_i with kappa what one wrong answer adds as a rule. The mean of the rest has a t
interval, the share of wrong answers a binomial one, and MOVER puts both together with their correlation. With many
answers of both sorts that is the t interval of the values, whatever kappa is.

Source: Zou & Donner 2008 (MOVER).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_calibration.metrics.uncertainty import clusters
from lm_eval_calibration.metrics.uncertainty.shares import Interval, discordant_interval, share_intervals
from lm_eval_calibration.metrics.validation import FloatArray, IntArray

PRIOR_EVENTS = 4
"""Events (z^2 of them, as in Wilson's interval) of no correlation with the rest, beside those that were seen."""


class Values(NamedTuple):
    """One value a doc, and how it depends on the answer.

    Attributes:
        value: [N] whose mean is the metric.
        wrong: [N] 1 where the answer is wrong, else 0.
        per_wrong: What one wrong answer adds to a value as a rule.
        cluster: [N] of the docs; None where each was drawn by itself.
    """

    value: FloatArray
    wrong: FloatArray
    per_wrong: float
    cluster: IntArray | None


def values_of(
    value: FloatArray, wrong: FloatArray, added: FloatArray, odds: FloatArray, *, cluster: IntArray | None
) -> Values:
    """Values, with the mean of what the wrong answers add and of what one more would.

    value: [N]. wrong: [N] 1 where the answer is wrong. added: [N] what that adds to the value, or would. odds: [N] how
    likely each doc is to be the one more.
    """
    one_more = float(np.average(added, weights=odds)) if odds.sum() > 0 else 0.0
    per_wrong = (float(added[wrong == 1].sum()) + one_more) / (float(wrong.sum()) + 1)
    return Values(value, wrong, per_wrong, cluster)


def mean_interval(values: Values, level: float) -> Interval:
    """Interval of the mean."""
    return mean_intervals([values], level)[0]


def mean_intervals(several: Sequence[Values], level: float) -> list[Interval]:
    """Intervals of the means of several samples, each at the level; the shares of all are found together."""
    n_docs = np.array([clusters.effective_docs(one.wrong, one.cluster, level) for one in several])
    n_wrong = np.array([one.wrong.mean() for one in several]) * n_docs
    shares = zip(*share_intervals(n_wrong, n_docs, level), strict=True)
    parts = [
        _Part(one.wrong, one.per_wrong, (float(low), float(high)))
        for one, (low, high) in zip(several, shares, strict=True)
    ]
    return [_put_together(one.value, [part], one.cluster, level) for one, part in zip(several, parts, strict=True)]


def difference_interval(a: Values, b: Values, level: float, *, same_answers: bool) -> Interval:
    """Interval of the mean of b less that of a on the same docs, from each doc's own difference.

    Docs that only one of the runs gets right are rare events, too: that there are none among these docs does not say
    that there are none, unless the runs' answers are the same by construction (``same_answers``). So are docs that both
    get wrong, where a wrong answer adds more to one run's value than to the other's.
    """
    cluster, wrong = a.cluster, (a.wrong + b.wrong) / 2
    parts = [_Part(wrong, b.per_wrong - a.per_wrong, clusters.event_interval(wrong, cluster, level))]
    event, per_event = b.wrong - a.wrong, (a.per_wrong + b.per_wrong) / 2
    if not same_answers or event.any():
        n_docs = min(clusters.effective_docs((event == sign).astype(np.float64), cluster, level) for sign in (1, -1))
        gained, lost = (float(np.mean(event == sign)) * n_docs for sign in (1, -1))
        parts.append(_Part(event, per_event, discordant_interval(gained, lost, n_docs, level)))
    return _put_together(b.value - a.value, parts, cluster, level)


class _Part(NamedTuple):
    """A part of the values: [N] an event (1, 0 or -1), what it adds, and the interval of its mean."""

    event: FloatArray
    per_event: float
    share: Interval


def _put_together(
    values: FloatArray, parts: Sequence[_Part], cluster: IntArray | None, level: float
) -> tuple[float, float]:
    """Interval of the mean of the values: that of the rest, Student's, and those of the parts, by MOVER.

    A negative correlation, which makes the interval narrower, is believed in as far as events were seen: of one event
    it would be the chance of where that one fell.
    """
    parts = [part for part in parts if part.per_event]
    moved = [part.per_event * part.event for part in parts]
    rest = values - np.sum(moved, axis=0) if parts else values
    sums = np.stack([clusters.independent_sums(part - part.mean(), cluster) for part in (rest, *moved)])
    half = clusters.t_quantile(level, len(rest), cluster) * float(np.sqrt(np.sum(sums[0] ** 2))) / len(rest)
    below, above = [half], [half]
    for part, of_docs in zip(parts, moved, strict=True):
        low, high = sorted(part.per_event * end for end in part.share)
        below.append(max(0.0, float(of_docs.mean()) - low))
        above.append(max(0.0, high - float(of_docs.mean())))
    together = _correlations(sums)
    for i, part in enumerate(parts, start=1):
        n_events = min(np.count_nonzero(part.event), np.count_nonzero(part.event == 0))
        doubt = n_events / (n_events + PRIOR_EVENTS)
        together[i] *= np.where(together[i] < 0, doubt, 1)
        together[:, i] = together[i]
    down, up = (float(np.sqrt(max(0.0, np.array(x) @ together @ np.array(x)))) for x in (below, above))
    return float(values.mean()) - down, float(values.mean()) + up


def _correlations(sums: FloatArray) -> FloatArray:
    """Correlations of the rows, [n, n]; 0 with a row that is constant."""
    products = sums @ sums.T
    spread = np.sqrt(np.diag(products))
    size = np.outer(spread, spread)
    correlations = np.divide(products, size, out=np.zeros_like(products), where=size > 0)
    np.fill_diagonal(correlations, 1)
    return np.asarray(np.clip(correlations, -1, 1))
