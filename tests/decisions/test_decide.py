"""Decisions: parts that share nothing, groups, clusters, costs, the file, and checks on other docs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from lm_eval_calibration.decisions import Costs, SavedDecision, Wanted, check, decide
from lm_eval_calibration.decisions.costs import cost_curve
from lm_eval_calibration.decisions.decide import answers_of
from lm_eval_calibration.decisions.parts import one_per_cluster, parts_of
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.recalibration import Docs


def chosen(n: int, seed: int = 0, *, groups: Sequence[str] | None = None, cluster: Any = None, first: int = 0) -> Docs:
    """Docs of a calibrated model that chooses among four options."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, 4))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return Docs.of(logits, labels, [f"doc {first + i}" for i in range(n)], groups, cluster)


def test_parts_share_no_doc_and_leave_none_out() -> None:
    docs = chosen(1000)
    parts = parts_of(docs)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert 500 < len(parts.calibration) < 700
    assert 60 < len(parts.ordering) < 140


def test_a_cluster_is_in_one_part() -> None:
    cluster = np.repeat(np.arange(1, 101), 10).astype(np.uint64)
    parts = parts_of(chosen(1000, cluster=cluster))
    whole = [set(cluster[rows].tolist()) for rows in parts]
    assert len(whole[0] | whole[1] | whole[2]) == sum(map(len, whole))


def test_clusters_or_docs_across_splits_are_refused() -> None:
    cluster = np.repeat(np.arange(1, 101), 10).astype(np.uint64)
    with pytest.raises(ValueError, match="calibration split and rest have 1 doc "):
        parts_of(chosen(1000, cluster=cluster), np.arange(1000) < 505)
    twice = chosen(10)
    twice.doc_hashes[9] = twice.doc_hashes[0]
    with pytest.raises(ValueError, match=r"1 doc .* doc 0 the first"):
        parts_of(twice, np.arange(10) < 5)


@pytest.mark.parametrize("calibration", [np.zeros(20, dtype=bool), np.ones(20, dtype=bool)])
def test_an_empty_split_is_named(calibration: Any) -> None:
    with pytest.raises(ValueError, match="is empty: 20 docs are too few"):
        decide(chosen(20), Wanted(0.1), calibration=calibration)


def test_one_doc_is_no_docs() -> None:
    with pytest.raises(ValueError, match="is empty: 1 doc is too few"):
        decide(chosen(1), Wanted(0.1))


def test_one_doc_of_each_cluster() -> None:
    cluster = np.repeat(np.arange(1, 51), 4).astype(np.uint64)
    docs = chosen(200, cluster=cluster)
    rows = one_per_cluster(docs, np.arange(100))
    assert len(rows) == 25
    assert len(set(cluster[rows].tolist())) == 25
    np.testing.assert_array_equal(one_per_cluster(chosen(200), np.arange(9)), np.arange(9))


def test_a_decision_is_shown_on_docs_it_was_not_made_on() -> None:
    docs = chosen(4000)
    found, parts = decide(docs, Wanted(0.1)), parts_of(docs)
    threshold = found.thresholds[""]
    assert threshold is not None
    seen = docs.forecasts.take(parts.others)
    answered = seen.confidence >= threshold
    shown = found.all_shown
    assert (shown.coverage.n, shown.coverage.total) == (answered.sum(), len(parts.others))
    assert (shown.errors.n, shown.errors.total) == ((1 - seen.correct[answered]).sum(), answered.sum())
    assert shown.errors.low <= shown.errors.value <= shown.errors.high
    assert found.groups[""].shown == shown
    assert sum(found.n_docs) == 4000


def test_every_group_has_its_threshold_and_all_hold_at_once() -> None:
    groups = np.where(np.random.default_rng(0).random(6000) < 0.2, "icu", "ward").tolist()
    found = decide(chosen(6000, groups=groups), Wanted(0.1), by="doc.ward")
    assert set(found.groups) == {"icu", "ward"}
    assert all(
        group.threshold.p_value <= 0.05 / 2 for group in found.groups.values() if group.threshold.value is not None
    )
    assert sum(group.shown.coverage.n for group in found.groups.values()) == found.all_shown.coverage.n


def test_a_group_of_one_doc_is_never_answered() -> None:
    found = decide(chosen(2000, groups=["ward"] * 1999 + ["one"]), Wanted(0.1), by="doc.ward")
    assert found.thresholds["one"] is None
    assert found.groups["one"].docs_needed is not None
    assert found.sets["lac"].q["one"] == np.inf


def test_groups_are_not_asked_for() -> None:
    assert list(decide(chosen(500, groups=["a", "b"] * 250), Wanted(0.1)).groups) == [""]


def test_sets_hold_the_right_option_in_every_group() -> None:
    groups = np.where(np.arange(6000) % 3 == 0, "hard", "easy").tolist()
    docs = chosen(6000, groups=groups)
    hard = docs.groups == "hard"
    docs.log_likelihoods[hard] = docs.log_likelihoods[hard] * 4  # far too sure
    shown = decide(docs, Wanted(0.1), by="doc.kind").sets["aps"].shown
    assert shown.by_group["hard"].low < 0.9 < shown.by_group["hard"].high + 0.03
    assert shown.by_group["easy"].low < 0.9 < shown.by_group["easy"].high + 0.03
    assert set(shown.by_class) == {0, 1, 2, 3}


def test_few_docs_show_sets_by_folds() -> None:
    shown = decide(chosen(150), Wanted(0.1)).sets["lac"].shown
    assert shown.is_cross_conformal
    assert shown.coverage.total == 150
    assert not decide(chosen(1500), Wanted(0.1)).sets["lac"].shown.is_cross_conformal


def test_generated_answers_have_no_sets() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    docs = Docs.of_answers(confidence, rng.random(500) < confidence, [str(i) for i in range(500)])
    assert decide(docs, Wanted(0.1)).sets == {}


def test_costs_are_counted_one_by_one() -> None:
    docs = chosen(300)
    answers, costs = answers_of(docs), Costs(10, 1)
    curve = cost_curve(answers, costs)
    for threshold, cost, coverage in zip(*curve, strict=True):
        each = [10 * w if c >= threshold else 1 for c, w in zip(answers.confidence, answers.wrong, strict=True)]
        assert cost == pytest.approx(np.mean(each), abs=1e-12)
        assert coverage == pytest.approx(np.mean(answers.confidence >= threshold), abs=1e-12)


def test_the_cheapest_threshold_of_a_calibrated_model_is_one_less_the_ratio() -> None:
    found = decide(chosen(20000), Wanted(0.1, costs=Costs(10, 2))).cost
    assert found is not None
    assert found.threshold == pytest.approx(1 - 2 / 10, abs=0.05)
    assert found.cost.low < found.cost.value < found.cost.high < min(found.never, found.always.low)
    assert found.saved.value == pytest.approx(min(found.never, found.always.value) - found.cost.value, abs=1e-12)
    assert found.saved.low > 0


@pytest.mark.parametrize(("wrong", "threshold"), [(False, 0.0), (True, np.inf)])
def test_always_or_never_may_be_cheapest(wrong: bool, threshold: float) -> None:
    docs = chosen(1000)
    always_or_never = Docs.of_answers(docs.forecasts.confidence, np.full(1000, not wrong), docs.doc_hashes.tolist())
    found = decide(always_or_never, Wanted(0.1, costs=Costs(10, 1))).cost
    assert found is not None
    assert found.threshold == threshold
    assert found.saved.value == 0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(0), "error_rate is 0; it must be above 0"),
        (Wanted(1), "error_rate is 1; it must be"),
        (Wanted(1.5), "error_rate is 1.5"),
        (Wanted(0.1, 1.0), "confidence_level is 1"),
        (Wanted(0.1, 0.95, Costs(0, 1)), "costs are 0 and 1; both must be above 0"),
        (Wanted(0.1, 0.95, Costs(1, float("nan"))), "costs are 1 and nan"),
    ],
)
def test_what_cannot_be_wanted(wanted: Wanted, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(chosen(100), wanted)


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    groups = ["a", "b"] * 1000
    saved = SavedDecision.of(decide(chosen(2000, groups=groups), Wanted(0.1, 0.9, Costs(5, 1)), by="task"), "m", ("t",))
    saved.write(tmp_path / "d.json")
    assert SavedDecision.read(tmp_path / "d.json") == saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "not a decision of version 1"),
        ({"definitions": 99}, "definition version 99"),
        ({"thresholds": {"": 2}}, "the threshold of '' is 2, not a confidence"),
        ({"costs": 3}, "not a decision"),
        ({"error_rate": 0}, "error_rate is 0"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "d.json"
    SavedDecision.of(decide(chosen(500), Wanted(0.1)), "m", ("t",)).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        SavedDecision.read(path)


@pytest.fixture(scope="module")
def saved() -> SavedDecision:
    return SavedDecision.of(decide(chosen(4000), Wanted(0.1)), "m", ("t",))


def test_a_decision_holds_on_docs_like_those(saved: SavedDecision) -> None:
    checked = check(saved, chosen(3000, seed=5, first=10_000))
    assert (checked.verdict, checked.n_docs, checked.n_left_out) == ("holds", 3000, 0)


def test_docs_it_was_made_on_are_left_out(saved: SavedDecision) -> None:
    docs = chosen(4000)
    checked = check(saved, docs)
    assert checked.n_left_out == len(parts_of(docs).calibration)
    assert checked.n_docs == 4000 - checked.n_left_out
    with pytest.raises(ValueError, match="made on all docs here"):
        check(saved, docs.take(parts_of(docs).calibration))


def test_wrong_too_often_is_broken(saved: SavedDecision) -> None:
    docs = chosen(3000, seed=5, first=10_000)
    flipped = np.where(np.arange(3000) % 4 == 0, (docs.labels + 1) % 4, docs.labels)
    worse = Docs.of(docs.log_likelihoods, flipped, docs.doc_hashes.tolist())
    checked = check(saved, worse)
    assert checked.verdict == "broken"
    assert checked.broken == ("",)


def test_other_confidences_are_other_docs(saved: SavedDecision) -> None:
    docs = chosen(3000, seed=5, first=10_000)
    unsure = Docs.of(docs.log_likelihoods / 3, docs.answers, docs.doc_hashes.tolist())  # always right, never sure
    assert check(saved, unsure).verdict == "other docs"


def test_false_alarms_are_rare(saved: SavedDecision) -> None:
    verdicts = [check(saved, chosen(400, seed=100 + i, first=10_000)).verdict for i in range(40)]
    assert sum(verdict != "holds" for verdict in verdicts) <= 6  # P = 0.0034 at 5%


def test_unknown_groups_are_named_and_never_answered() -> None:
    made = SavedDecision.of(decide(chosen(4000, groups=["a"] * 4000), Wanted(0.1), by="doc.ward"), "m", ("t",))
    new = chosen(2000, seed=5, first=10_000, groups=["a", "new"] * 1000)
    checked = check(made, new)
    assert checked.unknown_groups == ("new",)
    assert checked.groups["new"].coverage.n == 0
    assert checked.groups["a"].coverage.n > 0


def test_clusters_are_drawn_whole() -> None:
    """5 docs of a cluster say one thing: the guarantee is that of 800 clusters, not of 4,000 docs."""
    rng = np.random.default_rng(3)
    confidence, cluster = rng.beta(12, 0.5, 800), np.repeat(np.arange(800), 5)
    wrong = (rng.random(800) < 1 - confidence)[cluster]
    names = [str(i) for i in range(4000)]
    clustered = Docs.of_answers(confidence[cluster], ~wrong, names, None, (cluster + 1).astype(np.uint64))
    by_docs = Docs.of_answers(confidence[cluster], ~wrong, names)
    whole, single = decide(clustered, Wanted(0.1)), decide(by_docs, Wanted(0.1))
    assert (whole.n_clusters, whole.largest_cluster, single.n_clusters) == (800, 5, None)
    assert whole.groups[""].threshold.p_value > single.groups[""].threshold.p_value
    assert whole.all_shown.all_errors.high - whole.all_shown.all_errors.low > 1.5 * (
        single.all_shown.all_errors.high - single.all_shown.all_errors.low
    )
