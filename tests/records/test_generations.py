"""Records of generated answers: their confidences, checks, JSON and arrays."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import make_choices

from lm_eval_calibration import metrics
from lm_eval_calibration.records import Columns, GenerationRecord, Record, metric_arrays, read_columns, read_records
from lm_eval_calibration.records.gap_sums import doc_gap_sums
from lm_eval_calibration.records.generation import CONFIDENCES, Generation
from lm_eval_calibration.records.samples import Sample

LOG_PROBS = (math.log(0.9), math.log(0.5), math.log(0.25))


def make(
    *, correct: int = 1, tokens: Any = LOG_PROBS, samples: tuple[Sample, ...] = (), **changes: Any
) -> GenerationRecord:
    fields = {
        "task": "g",
        "doc_id": 3,
        "doc_hash": "d",
        "prompt_hash": "p",
        "log_probs": (math.log(0.6),),
        "large_probs": ((0.6, 0.3),),
        "kept_from": 0.05,
        "certificate": {"backend": "x"},
        "generation": Generation("t", "exact_match", "none", correct, tokens, samples),
    }
    return GenerationRecord(**{**fields, **changes})


def sample(answer: str, correct: int, log_probs: Any = LOG_PROBS) -> Sample:
    return Sample("t" + answer, answer, correct, log_probs)


def test_confidences_by_hand() -> None:
    found = make().generation.confidences
    assert tuple(found) == CONFIDENCES
    assert found["pavg"] == pytest.approx((0.9 + 0.5 + 0.25) / 3, abs=1e-15)
    assert found["pgeo"] == pytest.approx((0.9 * 0.5 * 0.25) ** (1 / 3), abs=1e-15)
    assert found["ptot"] == pytest.approx(0.9 * 0.5 * 0.25, abs=1e-15)
    assert found["pmin"] == pytest.approx(0.25, abs=1e-15)
    assert make().confidence == found["pavg"]
    assert [make(correct=c).correct for c in (0, 1)] == [0, 1]


def test_a_token_without_a_chance_counts() -> None:
    found = make(tokens=(0.0, -math.inf)).generation.confidences
    assert found == {"pavg": 0.5, "pgeo": 0.0, "ptot": 0.0, "pmin": 0.0}


@pytest.mark.parametrize(
    ("log_probs", "reason"),
    [((), "the answer is empty"), (None, "the backend gives no token probabilities")],
)
def test_an_undefined_confidence_is_null_with_a_reason(log_probs: Any, reason: str) -> None:
    record = make(tokens=log_probs)
    assert record.confidence is None
    assert record.generation.confidences is None
    data = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert data["confidence"] is None
    assert data["correct"] == 1
    assert data["generation"]["undefined"] == reason
    assert Record.from_dict(data) == record


@pytest.mark.parametrize(
    "record",
    [
        make(),
        make(correct=0, tokens=(0.0, -math.inf)),
        make(log_probs=None, large_probs=None, kept_from=None),
        make(samples=(sample("a", 0), sample("b", 1, None), sample("b", 1, ()))),
    ],
)
def test_json_round_trip(record: Record) -> None:
    data = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert Record.from_dict(data) == record
    assert data["kind"] == "generation"
    assert "log_likelihoods" not in data
    assert "gold" not in data
    assert Record.from_dict({**data, "entropy": 0.7}).to_dict() == {**data, "entropy": 0.7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": (-0.1, 0.01)}, r"token_log_probs\[1\] is 0\.01; a probability is at most 1"),
        ({"tokens": (math.nan,)}, r"token_log_probs\[0\] is nan"),
        ({"correct": 0.5}, r"correct is 0\.5, not 0 or 1"),
        ({"large_probs": None}, "log_probs and large_probs are not of the same positions"),
    ],
)
def test_what_no_metric_can_be_computed_from_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": None}, "record of g doc 3: no generation"),
        ({"gold": 1}, "a record of kind generation has gold, as if it were of kind multiple_choice"),
        ({"corpus": {"log_likelihood": -1}}, "a record of kind generation has corpus, as if it were of kind corpus"),
        ({"kind": "multiple_choice"}, "record of g doc 3: no gold, log_likelihoods"),
        ({"kind": "song"}, "kind is 'song'; there is answer, multiple_choice, corpus, generation"),
    ],
)
def test_json_of_no_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Record.from_dict({**make().to_dict(), **changes})


def test_a_bad_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"token_log_probs\[0\] is 2"):
        sample("a", 1, (2,))
    with pytest.raises(ValueError, match="correct of a sample is 2"):
        sample("a", 2)


def test_a_generation_has_no_choices() -> None:
    with pytest.raises(AttributeError):
        _ = make().probs


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((("a", 0), ("b", 1), ("b", 1)), (2 / 3, 1)),
        ((("a", 0), ("b", 1)), (0.5, 0)),  # of equals the first
        ((("a", 1),), (1.0, 1)),
    ],
)
def test_the_majority_s_share_and_whether_it_is_right(answers: Any, expected: tuple[float, int]) -> None:
    record = make(samples=tuple(sample(*answer) for answer in answers))
    assert record.generation.majority == expected
    judged = record.self_consistent()
    assert (judged.task, judged.doc_id, judged.confidence, judged.correct) == ("g", 3, *expected)
    confidence, correct = Columns.of([judged]).arrays("top_label")
    assert (confidence.tolist(), correct.tolist()) == ([expected[0]], [expected[1]])
    with pytest.raises(ValueError, match="g doc 3: it was not answered several times"):
        make().self_consistent()


def test_arrays_of_generations() -> None:
    records = [
        make(doc_id=2, correct=0),
        make(doc_id=0, tokens=()),
        make(doc_id=1, tokens=(math.log(0.3),)),
        replace(make(doc_id=3, tokens=None), log_probs=(), large_probs=()),
    ]
    for found in (Columns.of(records), Columns.of(reversed(records))):
        confidence, correct = found.arrays("top_label")
        np.testing.assert_allclose(confidence, [0.3, 0.55], rtol=0, atol=1e-15)
        assert correct.tolist() == [1, 0]
        gaps, n_positions = found.arrays("full_vocabulary")
        assert n_positions.tolist() == [1, 1, 1]  # the doc without reference tokens is left out
        np.testing.assert_allclose(gaps, doc_gap_sums([make()] * 3, 10), rtol=0, atol=1e-15)
        with pytest.raises(ValueError, match=r"g: a generated answer has no choices; brier_top_label, ece"):
            found.arrays("choices")
    assert metric_arrays(records, "top_label", 10)[0].tolist() == confidence.tolist()


def test_kinds_mix_where_a_metric_takes_both() -> None:
    columns = Columns.of([make(doc_id=1), make_choices(doc_id=1), make_choices(doc_id=2, gold=1)])
    confidence, correct = columns.arrays("top_label")
    expected = make_choices().confidence
    np.testing.assert_allclose(confidence, [0.55, expected, expected], rtol=0, atol=1e-15)
    assert correct.tolist() == [1, 1, 0]
    assert len(columns.arrays("full_vocabulary")[1]) == 3


def test_lines_of_other_filters_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    lines = [{"calibration": make().to_dict()}, {"calibration": "see the line of filter none"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert list(read_records(path)) == [make()]
    assert len(read_columns(path)) == 1


def test_the_generation_s_metrics_take_its_arrays() -> None:
    rng = np.random.default_rng(0)
    q = rng.uniform(0.05, 1, (50, 2))
    hits = rng.random(50) < q.mean(axis=1)
    records = [make(doc_id=i, correct=int(hits[i]), tokens=tuple(np.log(q[i]).tolist())) for i in range(50)]
    columns = Columns.of(records)
    for name, metric in metrics.GENERATION_CATALOG.items():
        if name == "smece":
            continue
        assert metric.kind != "choices"
        assert metric.name == name
        assert np.isfinite(metric.value(*columns.arrays(metric.kind))), name
    confidence = q.mean(axis=1)
    value = metrics.GENERATION_CATALOG["ace"].value(*columns.arrays("top_label"))
    assert value == pytest.approx(metrics.ace_one_class(confidence, hits.astype(int)), abs=1e-12)
    assert set(metrics.GENERATION_CORE) <= set(metrics.GENERATION_CATALOG)
    assert "brier_score" not in metrics.GENERATION_CATALOG
