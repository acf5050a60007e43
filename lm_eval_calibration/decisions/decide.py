"""A decision: when to answer, what can be ruled out, what it costs; made on some docs and shown on others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.decisions.candidates import Known, of_choices
from lm_eval_calibration.decisions.costs import CostDecision, decide_by_cost
from lm_eval_calibration.decisions.curve import GuaranteeCurve, guarantee_curve
from lm_eval_calibration.decisions.parts import Parts, cluster_numbers, one_per_cluster, parts_of
from lm_eval_calibration.decisions.sets_of_docs import SetsOfDocs, decide_sets
from lm_eval_calibration.decisions.shown import AnswersShown, show_answers
from lm_eval_calibration.decisions.thresholds import Answers, Guarantee, Threshold, choose_threshold
from lm_eval_calibration.decisions.wanted import Wanted
from lm_eval_calibration.metrics.group_errors import GroupErrors
from lm_eval_calibration.metrics.validation import IntArray
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.recalibration.by_group import digest

N_CONFIDENCE_BINS = 10
"""Bins of the confidences of the calibration docs, of equal mass, with which other docs' confidences are compared."""


@dataclass(frozen=True)
class GroupDecision:
    """When the model may answer the docs of a group alone.

    Attributes:
        threshold: the guaranteed one.
        shown: how it does on other docs.
        docs_needed: docs of the whole run with which a threshold would probably be found; None where there is one, or
            where answers seem to be wrong too often at every confidence.
    """

    threshold: Threshold
    shown: AnswersShown
    docs_needed: int | None


class ConfidenceCounts(NamedTuple):
    """How many calibration docs have which confidence: edges between bins, rising, and counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """What was decided, and how it does on other docs.

    Attributes:
        wanted: what was wanted.
        by: what groups are; None for one decision for all docs.
        groups: group to its decision; "" for all docs.
        all_shown: how the thresholds of all groups do together on the other docs.
        sets: name of the nonconformity score to its sets; empty without options.
        cost: the cheapest threshold; None where no costs were given.
        confidences: of the calibration docs.
        calibrated_on: digests of the calibration docs.
        calibrated_clusters: digests of their clusters.
        n_clusters: clusters among the docs; None where docs were drawn one by one.
        largest_cluster: most docs of a cluster; 1 where docs were drawn one by one.
        curve: what other error rates would give, with one threshold for all docs.
        n_docs: number of docs that order candidates, test them, and show.
        group_errors: confidence less accuracy of every group of docs; None where that was not wanted.
    """

    wanted: Wanted
    by: str | None
    groups: Mapping[str, GroupDecision]
    all_shown: AnswersShown
    sets: Mapping[str, SetsOfDocs]
    cost: CostDecision | None
    confidences: ConfidenceCounts
    calibrated_on: frozenset[str]
    calibrated_clusters: frozenset[str]
    n_clusters: int | None
    largest_cluster: int
    curve: GuaranteeCurve
    n_docs: tuple[int, int, int]
    group_errors: GroupErrors | None = None

    @property
    def thresholds(self) -> dict[str, float | None]:
        """Group to its threshold."""
        return {name: group.threshold.value for name, group in self.groups.items()}


def decide(
    docs: Docs,
    wanted: Wanted,
    *,
    by: str | None = None,
    known: Known | None = None,
    calibration: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Decision:
    """Decide on some docs and show the decision on the others.

    For all groups together, the probability that an error rate among the answers is higher than wanted in any group is
    at most 1 - confidence_level.

    Args:
        docs: with their groups and clusters.
        wanted: what is wanted.
        by: what the groups are, to be remembered; with None all docs are one group.
        known: candidates of the prediction sets; the docs' choices where not given.
        calibration: [N] True for the docs to decide on; 60% of them by their hashes where not given.
        seed: of the division.

    Raises:
        ValueError: bad input; splits that share docs or clusters or are empty.
    """
    wanted, docs = wanted.check(), docs if by is not None else docs.in_one_group()
    parts = parts_of(docs, calibration, seed)
    answers, sizes = answers_of(docs), _cluster_sizes(docs)
    found, largest = choose_thresholds(docs, parts, wanted), int(sizes.max())
    groups = {name: _shown(threshold, docs.groups == name, answers, parts) for name, threshold in found.items()}
    thresholds = {name: threshold.value for name, threshold in found.items()}
    others = answers.take(parts.others)
    return Decision(
        wanted,
        by,
        groups,
        show_answers(others, threshold_of_docs(docs.groups[parts.others], thresholds)),
        decide_sets(docs, of_choices(docs) if known is None else known, parts, alpha=wanted.error_rate),
        None if wanted.costs is None else decide_by_cost(answers.take(parts.calibration), others, wanted.costs),
        _count_confidences(answers.confidence[one_per_cluster(docs, parts.calibration)]),
        frozenset(map(digest, docs.doc_hashes[parts.calibration])),
        frozenset()
        if docs.cluster_ids is None
        else frozenset(map(digest, np.unique(docs.drawn_as[parts.calibration]))),
        None if docs.cluster_ids is None else len(sizes),
        largest,
        guarantee_curve(answers, parts, wanted, largest_cluster=largest),
        (len(parts.ordering), len(parts.testing), len(parts.others)),
    )


def choose_thresholds(docs: Docs, parts: Parts, wanted: Wanted) -> dict[str, Threshold]:
    """Group to its threshold; all G groups keep the error rate at once, each being tested at (1 - level) / G."""
    answers, names = answers_of(docs), np.unique(docs.groups).tolist()
    guarantee = Guarantee(
        wanted.error_rate, (1 - wanted.confidence_level) / len(names), int(_cluster_sizes(docs).max())
    )
    found = {}
    for name in names:
        ordering, testing = (rows[docs.groups[rows] == name] for rows in (parts.ordering, parts.testing))
        found[name] = choose_threshold(answers.take(ordering), answers.take(testing), guarantee)
    return found


def answers_of(docs: Docs) -> Answers:
    """Return the answers of docs with their confidence and cluster."""
    seen = docs.forecasts
    return Answers(seen.confidence, np.asarray(1.0 - seen.correct, dtype=np.float64), cluster_numbers(docs))


def threshold_of_docs(groups: NDArray[np.str_], thresholds: Mapping[str, float | None]) -> NDArray[np.float64]:
    """[N] threshold of each doc's group; inf, which never answers, where there is none."""
    values = {name: np.inf if value is None else value for name, value in thresholds.items()}
    return np.array([values[name] for name in groups.tolist()], dtype=np.float64)


def _shown(threshold: Threshold, inside: NDArray[np.bool_], answers: Answers, parts: Parts) -> GroupDecision:
    """A group's threshold on the group's other docs."""
    testing, others = (rows[inside[rows]] for rows in (parts.testing, parts.others))
    value, needed = np.inf if threshold.value is None else threshold.value, threshold.docs_needed
    if needed is not None:  # of the whole run, from the share of its docs that test
        needed = math.ceil(needed * len(answers) / max(1, len(testing)))
    return GroupDecision(threshold, show_answers(answers.take(others), np.full(len(others), value)), needed)


def _cluster_sizes(docs: Docs) -> IntArray:
    """Docs of each cluster, 1 for each doc where docs were drawn one by one."""
    return np.unique(docs.drawn_as, return_counts=True)[1] if docs.cluster_ids is not None else np.ones(1, np.int64)


def _count_confidences(confidence: NDArray[np.float64]) -> ConfidenceCounts:
    """Bins of equal mass, as far as ties allow."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, N_CONFIDENCE_BINS + 1)[1:-1]))
    return ConfidenceCounts(tuple(edges.tolist()), tuple(count_in_bins(confidence, edges).tolist()))


def count_in_bins(confidence: NDArray[np.float64], edges: "NDArray[np.float64] | tuple[float, ...]") -> IntArray:
    """[len(edges) + 1] docs in each bin; an edge belongs to the bin below it."""
    return np.bincount(np.searchsorted(np.asarray(edges), confidence, side="left"), minlength=len(edges) + 1)
