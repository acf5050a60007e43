"""Judged on other docs than it was fitted on: always."""

from collections.abc import Callable

import numpy as np
import pytest

from lm_eval_calibration import metrics
from lm_eval_calibration.recalibration import (
    METHODS,
    CrossFit,
    Docs,
    FittedOnTheseDocsError,
    MapByGroup,
    RecalibrationWarning,
    Temperature,
    before_after,
    compare_domains,
    cross_fit,
    fold_of,
)

CORE_METHODS = [name for name in METHODS if name != "beta"]


def temperatures(fitted):
    return [fold_map.maps[""].temperature for fold_map in fitted.maps.values()]


def test_cross_fitted_temperature_recovers_that_of_the_golden_sample(golden_docs):
    fitted = cross_fit("temperature", golden_docs)
    assert len(fitted.maps) == 5
    assert temperatures(fitted) == pytest.approx([1.9489] * 5, rel=0.02)
    assert np.mean(temperatures(fitted)) == pytest.approx(1.9489, rel=0.001)


def test_each_fold_is_judged_by_the_map_of_the_others(golden_docs):
    fitted = cross_fit("temperature", golden_docs, n_folds=3)
    for k in range(3):
        others, here = np.flatnonzero(fitted.fold != k), np.flatnonzero(fitted.fold == k)
        rows, labels = golden_docs.log_likelihoods, golden_docs.labels
        alone = Temperature().fit(rows[others], labels[others])
        expected = alone.predict_proba(rows[here])
        np.testing.assert_allclose(np.stack([fitted.forecasts.probs[i] for i in here]), expected, atol=1e-14)


def leaks(recalibrate: Callable[[Docs], CrossFit], docs: Docs) -> bool:
    """Whether turning the labels of a fold round changes what is said about its docs."""
    fitted = recalibrate(docs)
    for k in fitted.maps:
        here = fitted.fold == k
        labels = np.where(here, (docs.labels + 1) % 4, docs.labels)
        again = recalibrate(Docs(docs.log_likelihoods, labels, docs.doc_hashes, docs.groups))
        if not np.array_equal(again.forecasts.confidence[here], fitted.forecasts.confidence[here]):
            return True
    return False


def test_a_doc_whose_cluster_one_task_knows_is_in_one_fold():
    hashes = np.array([*"abcdef", *"abcdxy"])
    ids = np.array([0, 0, 0, 0, 0, 0, 7, 7, 5, 9, 9, 0], dtype=np.uint64)
    docs = Docs.of_answers(np.linspace(0.1, 0.9, 12), np.arange(12) % 2, hashes.tolist(), None, ids)
    assert docs.drawn_as.tolist() == ["7", "7", "5", "9", "e", "f", "7", "7", "5", "9", "9", "y"]
    ids[2] = 7  # c is in 5 and in 7: they are one
    docs = Docs.of_answers(np.linspace(0.1, 0.9, 12), np.arange(12) % 2, hashes.tolist(), None, ids)
    assert docs.drawn_as.tolist() == ["5", "5", "5", "9", "e", "f", "5", "5", "5", "9", "9", "y"]
    with pytest.warns(RecalibrationWarning, match="fewer than 20 docs"):  # and no error that a doc is in two folds
        cross_fit("platt", docs)


@pytest.mark.parametrize("method", CORE_METHODS)
def test_no_doc_has_a_say_in_its_own_recalibration(method, docs_of):
    assert not leaks(lambda docs: cross_fit(method, docs, n_folds=4), docs_of(150))


def test_a_planted_leak_is_seen(docs_of, monkeypatch):
    def fitted_on_all_docs(docs):
        with monkeypatch.context() as patch:
            honest = MapByGroup.fit
            patch.setattr(MapByGroup, "fit", lambda method, _, groups=None: honest(method, docs, groups))
            return cross_fit("temperature", docs)

    docs = docs_of(150)
    with pytest.raises(
        FittedOnTheseDocsError, match=r"fitted on (\d+) of these \1 docs; it can be tested on other docs"
    ):
        fitted_on_all_docs(docs)
    monkeypatch.setattr(MapByGroup, "recalibrate", MapByGroup.forecasts)  # even with that guard gone
    assert leaks(fitted_on_all_docs, docs)
    assert not leaks(lambda docs: cross_fit("temperature", docs), docs)


def test_the_same_doc_is_in_the_same_fold_for_every_model(docs_of):
    hashes = docs_of(1000).doc_hashes
    fold = fold_of(hashes)
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(fold_of(hashes[order]), fold[order])
    np.testing.assert_array_equal(fold_of(hashes[:10]), fold[:10])
    assert np.bincount(fold, minlength=5).min() > 150
    assert (fold_of(hashes, seed=1) != fold).mean() > 0.5
    with pytest.raises(ValueError, match="n_folds is 1"):
        fold_of(hashes, 1)


def test_copies_of_a_doc_stay_together(docs_of, joined):
    docs = docs_of(60)
    doubled = joined(docs, docs)
    fold = fold_of(doubled.doc_hashes)
    np.testing.assert_array_equal(fold[:60], fold[60:])
    assert not leaks(lambda docs: cross_fit("isotonic", docs), doubled)


def test_few_docs_are_left_as_they_are_with_a_reason(docs_of):
    for n in (1, 2, 20):
        docs = docs_of(n)
        with pytest.warns(RecalibrationWarning, match="left as it is: fewer than 20 docs to fit on"):
            fitted = cross_fit("temperature", docs)
        np.testing.assert_array_equal(fitted.forecasts.confidence, docs.forecasts.confidence)


def test_a_small_group_is_left_as_it_is_and_named(docs_of, joined):
    docs = joined(docs_of(200, group="large"), docs_of(15, group="small", seed=1))
    with pytest.warns(RecalibrationWarning, match="^small: left as it is"):
        fitted = cross_fit("temperature", docs)
    small = docs.groups == "small"
    np.testing.assert_array_equal(fitted.forecasts.confidence[small], docs.forecasts.confidence[small])
    assert (fitted.forecasts.confidence[~small] != docs.forecasts.confidence[~small]).all()


def test_groups_have_maps_of_their_own(docs_of, joined):
    law, medicine = docs_of(400, group="law", temperature=3), docs_of(400, group="medicine", temperature=0.5, seed=1)
    fitted = MapByGroup.fit("temperature", joined(law, medicine))
    alone = Temperature().fit(law.log_likelihoods, law.labels)
    assert fitted.maps["law"].temperature == pytest.approx(alone.temperature, rel=1e-12)
    assert fitted.maps["medicine"].temperature == pytest.approx(0.5, rel=0.2)
    with pytest.raises(ValueError, match=r"the map has no group 'code'; it has 'law', 'medicine'"):
        fitted.forecasts(docs_of(3, group="code"))
    with pytest.raises(ValueError, match="no method 'magic'; there are temperature"):
        MapByGroup.fit("magic", law)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("temperature", [0.02, 1.0, 60.0])
def test_accuracy_is_the_same_before_and_after(docs_of, ragged, temperature):
    docs = docs_of(300, temperature=temperature, ragged=ragged, ties=True)
    after = cross_fit("temperature", docs).forecasts
    np.testing.assert_array_equal(after.correct, docs.forecasts.correct)
    answers = [int(np.argmax(row)) for row in docs.log_likelihoods]
    assert all(p[answer] == p.max() for p, answer in zip(after.probs, answers, strict=True))
    accuracy = before_after(docs.forecasts, after, names=("nll",))[0]
    assert (accuracy.name, accuracy.before) == ("acc", accuracy.after)
    wrong = [np.roll(p, 1) for p in after.probs]
    with pytest.raises(AssertionError, match="the answer changed"):
        docs.with_probs(wrong)


@pytest.mark.slow
def test_no_improvement_is_made_up_where_there_is_none():
    """200 draws of 300 calibrated docs: recalibration must not seem to help."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (200, 300, 4))
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    labels = (rng.random((200, 300, 1)) > np.cumsum(p, axis=2)[:, :, :3]).sum(axis=2)
    hashes = [str(i) for i in range(300)]
    changes = []
    for draw in range(200):
        docs = Docs.of(z[draw], labels[draw], hashes)
        after = cross_fit("temperature", docs).forecasts
        changes.append(metrics.nll(after.probs, docs.labels) - metrics.nll(p[draw], docs.labels))
    mean, error = np.mean(changes), np.std(changes, ddof=1) / np.sqrt(200)
    assert mean > -2 * error
    in_sample = []
    for draw in range(200):  # judged on its own docs, the same map seems to help: the test can fail
        own = Temperature().fit(z[draw], labels[draw]).predict_proba(z[draw])
        in_sample.append(metrics.nll(own, labels[draw]) - metrics.nll(p[draw], labels[draw]))
    assert np.mean(in_sample) < -2 * np.std(in_sample, ddof=1) / np.sqrt(200)


def test_a_temperature_of_one_domain_can_make_another_worse_and_the_table_says_so(docs_of):
    overconfident, underconfident = docs_of(1500, temperature=2), docs_of(1500, temperature=0.8, seed=1)
    names = ("nll", "ece", "brier_score", "ace")
    fitted = MapByGroup.fit("temperature", overconfident)
    abroad = before_after(underconfident.forecasts, fitted.recalibrate(underconfident), names=names)
    assert [c.verdict for c in abroad] == ["", "worse", "worse", "worse", "worse"]  # accuracy first
    assert abroad[2].low > 0
    at_home = before_after(overconfident.forecasts, cross_fit("temperature", overconfident).forecasts, names=names)
    assert [c.verdict for c in at_home] == ["", "better", "better", "better", "better"]


def test_a_map_for_each_domain_against_one_for_all(docs_of, joined):
    docs = joined(docs_of(800, group="law", temperature=3), docs_of(800, group="medicine", temperature=0.6, seed=1))
    every, law, medicine = compare_domains("temperature", docs)
    assert [d.name for d in (every, law, medicine)] == ["all", "law", "medicine"]
    assert [d.n_docs for d in (every, law, medicine)] == [1600, 800, 800]
    assert every.unchanged["nll"] == metrics.nll(docs.forecasts.probs, docs.labels)
    assert all(d.changes[name].verdict == "better" for d in (every, medicine) for name in ("nll", "ece"))
    assert medicine.changes["ece"].before > medicine.unchanged["ece"]  # one map for all does harm there
    alike = joined(docs_of(400, group="a"), docs_of(400, group="b", seed=1))
    assert "better" not in {d.changes["nll"].verdict for d in compare_domains("temperature", alike)}
    assert set(compare_domains("platt", alike)[0].changes) == {"brier_top_label", "ece"}


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_docs_of_different_lengths_are_recalibrated_as_docs_of_one_length(method: str, docs_of) -> None:
    docs = docs_of(200)
    ragged = [*docs.log_likelihoods[:-1], np.append(docs.log_likelihoods[-1], -np.inf)]
    longer = Docs.of(ragged, docs.labels, docs.doc_hashes)
    one, other = cross_fit(method, docs).forecasts, cross_fit(method, longer).forecasts
    assert isinstance(docs.log_likelihoods, np.ndarray)
    assert isinstance(longer.log_likelihoods, list)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(one.correct, other.correct)
