"""Does a decision still hold on new docs? An exact test of the promised error rate, and one of exchangeable docs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.decisions.candidates import Known, of_choices
from lm_eval_calibration.decisions.decide import answers_of, count_in_bins, threshold_of_docs
from lm_eval_calibration.decisions.decision_file import SavedDecision
from lm_eval_calibration.decisions.error_tests import cluster_p_value, error_p_value
from lm_eval_calibration.decisions.parts import one_per_cluster
from lm_eval_calibration.decisions.sets_of_docs import SetsShown, show_sets
from lm_eval_calibration.decisions.shown import AnswersShown, show_answers
from lm_eval_calibration.decisions.thresholds import Answers
from lm_eval_calibration.metrics import holm
from lm_eval_calibration.metrics.verdicts import ALPHA
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.recalibration.by_group import digest
from lm_eval_calibration.records.display import counted

Verdict = Literal["holds", "broken", "other docs", "nothing promised"]


class Check(NamedTuple):
    """One test: of a group's error rate, or (name None) of exchangeable docs. ``p_adjusted`` is Holm's over all."""

    name: str | None
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Checked:
    """A decision on docs that it was not made on.

    Attributes:
        n_docs: new docs.
        n_left_out: docs of the run that the decision was made on, or that are of the same clusters.
        groups: group to how its threshold does.
        all_shown: the same of all docs.
        sets: nonconformity score to how its sets do.
        checks: the tests.
        unknown_groups: groups of the docs that were not decided on, which are never answered.
        is_promised: whether the decision has a threshold, of any group.
        missing_tasks: tasks that were decided on, of which the run has no docs.
    """

    n_docs: int
    n_left_out: int
    groups: Mapping[str, AnswersShown]
    all_shown: AnswersShown
    sets: Mapping[str, SetsShown]
    checks: tuple[Check, ...]
    unknown_groups: tuple[str, ...]
    is_promised: bool
    missing_tasks: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """Groups whose answers are wrong more often than promised."""
        return tuple(c.name for c in self.checks if c.name is not None and c.p_adjusted <= ALPHA)

    @property
    def verdict(self) -> Verdict:
        """What the tests say together; a false alarm in about 5% at most: that of exchangeable docs is asymptotic."""
        if not self.is_promised:
            return "nothing promised"
        if self.broken:
            return "broken"
        return "other docs" if any(c.name is None and c.p_adjusted <= ALPHA for c in self.checks) else "holds"


def check(saved: SavedDecision, docs: Docs, known: Known | None = None) -> Checked:
    """Test a decision on the docs of a run that it was not made on.

    Args:
        saved: the decision.
        docs: of the new run, with groups as the decision has them.
        known: candidates of the prediction sets; the docs' choices where not given.

    Raises:
        ValueError: it was made on all of them.
    """
    is_new = _is_new(saved, docs)
    if not is_new.any():
        raise ValueError(
            f"the decision was made on all docs here ({counted(len(docs))}, or their clusters); "
            "it can be checked on others only"
        )
    new = np.flatnonzero(is_new)
    fresh, known = docs.take(new), of_choices(docs) if known is None else known
    answers, names = answers_of(fresh), np.unique(fresh.groups).tolist()
    thresholds = {name: saved.thresholds.get(name) for name in names}
    of_doc = threshold_of_docs(fresh.groups, thresholds)
    rows = {name: np.flatnonzero(fresh.groups == name) for name in names}
    tests = {
        name: _error_test(answers.take(rows[name]), value, saved)
        for name, value in thresholds.items()
        if value is not None
    }
    p_values = [_exchangeability(saved, fresh), *tests.values()]
    adjusted = holm(p_values).tolist()
    return Checked(
        len(fresh),
        int((~is_new).sum()),
        {name: show_answers(answers.take(which), of_doc[which]) for name, which in rows.items()},
        show_answers(answers, of_doc),
        _sets(saved, {name: candidates.take(new) for name, candidates in known.items()}, fresh),
        tuple(map(Check, [None, *tests], p_values, adjusted)),
        tuple(name for name in names if name not in saved.thresholds),
        any(value is not None for value in saved.thresholds.values()),
    )


def _is_new(saved: SavedDecision, docs: Docs) -> NDArray[np.bool_]:
    """[N] False for docs that were decided on, and for those drawn with one of these."""
    known = saved.calibrated_on | saved.calibrated_clusters
    pairs = zip(docs.doc_hashes.tolist(), docs.drawn_as.tolist(), strict=True)
    return np.array([known.isdisjoint(map(digest, pair)) for pair in pairs])


def _error_test(answers: Answers, threshold: float, saved: SavedDecision) -> float:
    """Exact p-value of an error rate among the answers that is at most the promised one."""
    answered, error_rate = answers.confidence >= threshold, saved.wanted.error_rate
    if answers.cluster is None:
        return error_p_value(int(answers.wrong[answered].sum()), int(answered.sum()), error_rate, is_lower=False)
    largest = max(saved.largest_cluster, int(np.bincount(answers.cluster).max()))
    weights = answered.astype(np.float64)
    return cluster_p_value(answers.wrong, weights, answers.cluster, error_rate, largest, is_lower=False)


def _exchangeability(saved: SavedDecision, docs: Docs) -> float:
    """Chi-squared p-value of confidences distributed as those of the calibration docs, one doc a cluster."""
    from scipy.stats import chi2_contingency

    confidence = docs.forecasts.confidence[one_per_cluster(docs, np.arange(len(docs)))]
    counts = np.stack([np.array(saved.confidences.counts), count_in_bins(confidence, saved.confidences.edges)])
    counts = counts[:, counts.sum(axis=0) > 0]
    return float(chi2_contingency(counts).pvalue) if counts.shape[1] > 1 else 1.0


def _sets(saved: SavedDecision, known: Known, docs: Docs) -> dict[str, SetsShown]:
    found = {}
    for name in (name for name in saved.q if name in known):
        q = saved.q[name]
        limits = np.array([np.inf if q.get(group) is None else q[group] for group in docs.groups.tolist()])
        found[name] = show_sets(known[name], limits, docs)
    return found
