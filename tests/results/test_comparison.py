"""Two runs compared on their records: docs paired by hash, metrics as in metrics.compare, what is not comparable."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.verdicts import sum_of
from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.records.gap_sums import doc_gap_sums
from lm_eval_calibration.results import align, certificate_differences, compare_runs

CERTIFICATE = {
    "backend": "HFLM",
    "distributions": "exact",
    "tokenizer": "t",
    "dtype": "float32",
    "versions": {"x": "1"},
}


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def docs(task, n, seed=0):
    """True logits and gold choices of n docs."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 4))
    return [(f"{task} {i}", z, int(rng.choice(4, p=softmax(z)))) for i, z in enumerate(logits)]


def answered(task, questions, *, sharpness=1.0, noise=0.0, seed=0, **changes):
    """Records of a model; sharpness above 1 is overconfident."""
    rng, records = np.random.default_rng([seed, 7]), []
    for doc_id, (doc_hash, z, gold) in enumerate(questions):
        logits = sharpness * (z + noise * rng.standard_normal(4))
        probs = softmax(logits)
        record = ChoicesRecord(
            task=task,
            doc_id=doc_id,
            doc_hash=doc_hash,
            prompt_hash=f"prompt of {doc_hash}",
            log_likelihoods=tuple(logits.tolist()),
            gold=gold,
            log_probs=(math.log(probs[gold]),),
            large_probs=(tuple(p for p in probs.tolist() if p >= 0.05),),
            kept_from=0.05,
            vocab_size=4,
            certificate=CERTIFICATE,
        )
        records.append(replace(record, **changes))
    return records


@pytest.fixture
def questions():
    return {task: docs(task, n, seed) for task, n, seed in (("one", 150, 0), ("two", 250, 1), ("three", 200, 2))}


@pytest.fixture
def runs(questions):
    a = [record for task, some in questions.items() for record in answered(task, some)]
    b = [record for task, some in questions.items() for record in answered(task, some, sharpness=2, noise=0.5)]
    return a, b


def arrays(records):
    """The arrays of a run, written out."""
    probs = np.array([softmax(np.array(record.log_likelihoods)) for record in records])
    labels = np.array([record.gold for record in records])
    gaps = doc_gap_sums(records, 10)
    correct = (probs.argmax(axis=1) == labels).astype(int)
    return metrics.Run(probs.max(axis=1), correct, probs, labels, gaps, np.ones(len(labels), dtype=int), "t")


def test_differences_are_those_of_metrics_compare_on_the_aligned_arrays(runs):
    a, b = runs
    shuffled = [b[i] for i in np.random.default_rng(0).permutation(len(b))]
    names = ["acc", *(name for name in metrics.CATALOG if name != "smece")]  # whose package takes 5 s to load
    found = compare_runs(a, shuffled, names=names)
    assert [task.task for task in found.tasks] == ["one", "three", "two"]
    by_task = {task.task: task for task in found.tasks}
    expected = metrics.compare(arrays(a[:150]), arrays(b[:150]), names=names)
    assert list(by_task["one"].differences) == names
    for name, one in by_task["one"].differences.items():
        np.testing.assert_allclose(one[1:7], expected[name][:6], rtol=0, atol=1e-9, err_msg=name)
    order = [record for task in ("one", "three", "two") for record in a if record.task == task]
    others = [record for task in ("one", "three", "two") for record in b if record.task == task]
    pooled = metrics.compare(arrays(order), arrays(others), names=names)
    assert found.pooled.n_a == found.pooled.n_b == 600
    assert found.pooled.paired
    for name, one in found.pooled.differences.items():
        np.testing.assert_allclose(one[1:7], pooled[name][:6], rtol=0, atol=1e-9, err_msg=name)


def test_the_sum_of_both_runs_overconfidence_is_taken_by_clusters(questions):
    """Whether overconfidence moved towards 0 depends on the sum; docs of a cluster that say one thing make it wider."""
    one, other = (answered("one", questions["one"], sharpness=s, seed=s) for s in (1, 3))
    ids = [f"{i // 5 + 1:016x}" for i in range(len(one))]
    clustered = [[replace(r, cluster=c) for r, c in zip(run, ids, strict=True)] for run in (one, other)]
    alone, together = (
        compare_runs(*runs, names=["overconfidence"]).tasks[0].differences["overconfidence"].total
        for runs in ((one, other), clustered)
    )
    own = [metrics.overconfidence_interval(*arrays(run)[:2], cluster=ids) for run in (one, other)]
    single = [metrics.overconfidence_interval(*arrays(run)[:2]) for run in (one, other)]
    assert together != alone
    for total, parts in ((together, own), (alone, single)):
        assert total == pytest.approx(sum_of(*parts), abs=1e-12)


def test_p_values_are_adjusted_over_the_tasks_of_each_metric(runs):
    found = compare_runs(*runs, names=["ece", "acc"])
    for name in ("ece", "acc"):
        each = [task.differences[name] for task in found.tasks]
        assert [d.p_adjusted for d in each] == pytest.approx(metrics.holm([d.p_value for d in each]).tolist(), abs=0)
        assert {d.n_tests for d in each} == {3}
    pooled = found.pooled.differences["ece"]
    assert pooled.p_adjusted == pooled.p_value
    assert pooled.n_tests == 1
    assert pooled.verdict == "worse"
    assert compare_runs(*reversed(runs), names=["ece"]).pooled.differences["ece"].verdict == "better"


def test_a_task_without_a_p_value_is_no_test(runs):
    a, b = ([replace(r, gold=int(np.argmax(r.log_likelihoods))) if r.task == "one" else r for r in run] for run in runs)
    found = {task.task: task.differences["auroc"] for task in compare_runs(a, b, names=["auroc"]).tasks}
    assert math.isnan(found["one"].p_adjusted)
    assert "every doc is correct" in found["one"].reason
    assert found["two"].n_tests == 2
    assert found["two"].reason == ""


def test_docs_of_one_hash_are_paired_in_the_order_of_their_ids(questions):
    some = questions["one"][:20]
    twice = [*some, *some[:5]]
    a, b = answered("one", twice), answered("one", [*twice, some[0]], noise=1)
    found = align(reversed(a), b)
    assert found.paired
    assert [x.doc_id for x in found.a] == list(range(25))
    assert [y.log_likelihoods for y in found.b] == [y.log_likelihoods for y in b[:25]]
    assert (found.left_out_a, found.left_out_b) == (0, 1)


def test_docs_are_paired_where_half_of_the_smaller_run_is_shared_else_taken_as_independent(questions):
    a = answered("one", questions["one"][:100])
    half = align(a, answered("one", questions["one"][50:]))
    assert half.paired
    assert (len(half.a), half.left_out_a, half.left_out_b) == (50, 50, 50)
    assert [r.doc_hash for r in half.a] == [r.doc_hash for r in half.b]
    assert [r.doc_id for r in half.a] == [r.doc_id for r in half.b]
    less = align(a, answered("one", questions["one"][51:]))
    assert not less.paired
    assert (len(less.a), len(less.b), less.left_out_a, less.left_out_b) == (100, 99, 0, 0)


def test_unpaired_tasks_make_the_pooled_comparison_unpaired(questions):
    a = answered("one", questions["one"]) + answered("two", questions["two"][:100])
    b = answered("one", questions["one"], noise=1) + answered("two", questions["two"][100:])
    found = compare_runs(a, b, names=["brier_score"])
    assert [task.paired for task in found.tasks] == [True, False]
    assert not found.pooled.paired
    assert (found.pooled.n_a, found.pooled.n_b) == (250, 300)
    one, other = arrays(a), arrays(b)
    expected = metrics.compare(one, other, names=["brier_score"], paired=False)["brier_score"]
    assert found.pooled.differences["brier_score"][1:7] == pytest.approx(tuple(expected[:6]), abs=1e-12)


def test_docs_with_a_broken_label_in_either_run_are_left_out(questions):
    a, b = answered("one", questions["one"]), answered("one", questions["one"], noise=1)
    a[3], b[7] = replace(a[3], gold=None), replace(b[7], gold=None)
    found = compare_runs(a, b, names=["ece"]).tasks[0]
    assert (found.n_a, found.n_b, found.left_out_a, found.left_out_b) == (148, 148, 2, 2)


def test_full_ece_of_other_tokenizers_vocabularies_or_token_numbers_has_no_difference(questions):
    a = answered("one", questions["one"])
    others = {
        "not between t (4 entries) and u (4 entries)": {"certificate": {**CERTIFICATE, "tokenizer": "u"}},
        "not between t (4 entries) and t (5 entries)": {"vocab_size": 5},
        "don't name one": {"certificate": {}},
        "other numbers of tokens": {"log_probs": (-3.0, -3.0), "large_probs": ((0.9,), (0.9,))},
    }
    for reason, changes in others.items():
        found = compare_runs(a, answered("one", questions["one"], **changes), names=["full_ece", "ece"])
        full_ece = found.tasks[0].differences["full_ece"]
        assert math.isnan(full_ece.p_value)
        assert math.isnan(full_ece.difference)
        assert reason in full_ece.reason
        assert found.tasks[0].differences["ece"].p_value == 1
    # One vocabulary under two names is one tokenizer.
    named = [answered("one", questions["one"], certificate={"tokenizer": x, "vocabulary": "5f"}) for x in "uv"]
    assert compare_runs(*named, names=["full_ece"]).tasks[0].differences["full_ece"].p_value == 1


def test_records_without_token_distributions_say_so(questions):
    a = answered("one", questions["one"])
    b = answered("one", questions["one"], log_probs=None, large_probs=None)
    found = compare_runs(a, b, names=["full_ece", "nll"]).tasks[0].differences
    assert "no token distributions were recorded" in found["full_ece"].reason
    assert found["nll"].reason == ""


def test_other_prompts_and_other_gold_choices_are_counted(questions):
    a, b = answered("one", questions["one"]), answered("one", questions["one"])
    b[:12] = [replace(record, prompt_hash="another") for record in b[:12]]
    b[5] = replace(b[5], gold=(b[5].gold + 1) % 4)
    found = compare_runs(a, b, names=["acc"]).tasks[0]
    assert (found.other_prompts, found.other_golds) == (12, 1)


def certificates(records):
    return [record.certificate for record in records]


def test_certificates_that_differ_are_listed_field_by_field(runs):
    a, b = runs
    other = {**CERTIFICATE, "dtype": "bfloat16", "versions": {"x": "2"}, "k": 20}
    found = compare_runs(
        a, [replace(r, certificate=other) if r.task == "two" else r for r in b], names=["acc"]
    ).certificate_differences
    assert [str(difference) for difference in found] == [
        "dtype: float32 against bfloat16 and float32 (some docs each)",
        "version of x: 1 against 1 and 2 (some docs each)",
        "entries of the vocabulary that the server returns: not recorded against not recorded and 20 (some docs each)",
    ]
    assert certificate_differences(*map(certificates, (a, b))) == ()


@pytest.mark.parametrize("place", [lambda fields: fields, lambda fields: {"reference": fields}])
def test_one_vocabulary_in_two_folders_is_no_difference(questions, place):
    a, b = (
        answered("one", questions["one"], certificate=place({"tokenizer": folder, "vocabulary": "5f"}))
        for folder in ("a", "b")
    )
    assert certificate_differences(*map(certificates, (a, b))) == ()
    other = answered("one", questions["one"], certificate=place({"tokenizer": "b", "vocabulary": "60"}))
    found = certificate_differences(*map(certificates, (a, other)))
    assert {difference.field.split(".")[-1] for difference in found} == {"tokenizer", "vocabulary"}


def test_tasks_that_only_one_run_has_are_named(runs):
    a, b = runs
    found = compare_runs([r for r in a if r.task != "one"], [r for r in b if r.task != "two"], names=["acc"])
    assert (found.only_a, found.only_b) == (("two",), ("one",))
    assert [task.task for task in found.tasks] == ["three"]
    assert found.pooled.task == "all"
    assert found.pooled.differences == found.tasks[0].differences


def test_what_cannot_be_compared_is_an_error(questions, runs):
    a = answered("one", questions["one"])
    with pytest.raises(ValueError, match="no task in common: one in a, zwei in b"):
        compare_runs(a, answered("zwei", questions["one"]))
    with pytest.raises(ValueError, match="one doc 0 is in run b twice"):
        compare_runs(a, a + a[:1])
    with pytest.raises(ValueError, match="one: no doc of run b has a sound gold label"):
        compare_runs(a, answered("one", questions["one"], gold=None))
    with pytest.raises(ValueError, match="'eec' is no metric"):
        compare_runs(a, a, names=["eec"])
