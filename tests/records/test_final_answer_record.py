"""The final answer of a generated text: its probability, its tail, what became of it, and the chain before it."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy

from lm_eval_calibration.records import (
    ChainConfidence,
    FinalAnswer,
    Generation,
    GenerationRecord,
    Record,
    Sample,
)

PROBS = (0.9, 0.5, 0.25, 0.8)
THOUGHT = (0.7, 0.3)


def make(answer: FinalAnswer | None, *, thought: Sequence[float] | None = None, **changes: Any) -> GenerationRecord:
    fields: dict[str, Any] = {"token_log_probs": tuple(np.log(PROBS).tolist()), "answer": answer}
    fields |= {"thought_log_probs": None if thought is None else tuple(np.log(thought).tolist())}
    generation = Generation("t", "exact_match", "none", 1, **{**fields, **changes})
    return GenerationRecord(task="g", doc_id=1, doc_hash="d", prompt_hash="p", generation=generation)


def test_the_answer_s_probability_is_the_product_of_its_tokens() -> None:
    generation = make(FinalAnswer("answered", (4, 9), (1, 3))).generation
    assert generation.answer_probability == pytest.approx(0.5 * 0.25, abs=1e-15)
    assert make(None).generation.answer_probability is None
    assert make(FinalAnswer("answered")).generation.answer_probability is None
    unknown = make(FinalAnswer("answered", (4, 9), (1, 3)), token_log_probs=None).generation
    assert unknown.answer_probability is None


@pytest.mark.parametrize(
    ("tokens", "tail", "thought", "expected"),
    [
        ((2, 3), 2, None, (0.9 + 0.5) / 2),
        ((2, 3), 1, None, 0.5),
        ((2, 3), 99, None, (0.9 + 0.5) / 2),
        ((1, 3), 2, THOUGHT, (0.3 + 0.9) / 2),  # the end of a thought that was taken away
        ((0, 3), 5, THOUGHT, (0.7 + 0.3) / 2),
        ((0, 3), 5, None, None),  # nothing stands before the answer
        ((2, 3), None, None, None),
    ],
)
def test_the_tail_s_mean_probability(tokens: Any, tail: Any, thought: Any, expected: float | None) -> None:
    found = make(FinalAnswer("answered", (0, 1), tokens, tail), thought=thought).generation.tail_probability
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-15))


def test_an_answer_is_part_of_the_text_or_all_of_it() -> None:
    assert make(FinalAnswer("answered", (4, 9), (1, 3))).generation.is_part_of_the_text
    assert not make(FinalAnswer("answered", (0, 9), (0, 4))).generation.is_part_of_the_text
    assert make(FinalAnswer("answered", (0, 9), (0, 4)), thought=THOUGHT).generation.is_part_of_the_text
    assert not make(FinalAnswer("answered")).generation.is_part_of_the_text


@pytest.mark.parametrize("outcome", ["truncated", "not_found", "empty", "refused"])
def test_a_text_without_an_answer_has_no_confidence(outcome: str) -> None:
    record = make(FinalAnswer(outcome))
    assert record.confidence is None
    assert record.with_confidence(0.5).confidence is None
    assert record.generation.mean_probability == pytest.approx(np.mean(PROBS))
    assert record.as_if_answered(0)[2:4] == (pytest.approx(np.mean(PROBS)), 0)
    data = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert data["confidence"] is None
    assert data["generation"]["undefined"] == f"the text holds no answer: {outcome}"
    assert Record.from_dict(data) == record


def test_a_record_without_an_outcome_counts_as_answered() -> None:
    assert make(None).confidence == pytest.approx(np.mean(PROBS))
    assert make(None).generation.outcome == "answered"
    assert make(None, token_log_probs=()).generation.outcome == "empty"


@pytest.mark.parametrize(
    "record",
    [
        make(FinalAnswer("answered", (4, 9), (1, 3), 32), thought_log_probs=(-0.5, -math.inf)),
        make(FinalAnswer("answered", (4, 9))),
        make(FinalAnswer("not_found"), chain=ChainConfidence(20, 2, 3, (1.5, 0.5))),
        make(None, samples=(Sample("a", "b", 1, None, "answered"), Sample("a", "b", 0, None, "not_found"))),
    ],
)
def test_json_round_trip(record: Record) -> None:
    assert Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: FinalAnswer("lost"), "outcome is 'lost'; there are answered, truncated"),
        (lambda: FinalAnswer("answered", (5, 3)), r"span of an answer is \(5, 3\)"),
        (lambda: FinalAnswer("answered", (0, 3), (-1, 3)), r"tokens of an answer is \(-1, 3\)"),
        (lambda: Sample("t", "a", 1, None, "lost"), "outcome of a sample is 'lost'"),
        (lambda: make(None, thought_log_probs=(0.5,)), r"thought_log_probs\[0\] is 0\.5"),
    ],
)
def test_what_can_t_be_is_refused(make_bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()


def samples(*answers: tuple[str, int, str]) -> dict[str, Any]:
    return {"samples": tuple(Sample("t" + name, name, correct, None, o) for name, correct, o in answers)}


def test_samples_without_an_answer_have_no_vote() -> None:
    lost = ("x", 0, "not_found")
    generation = make(None, **samples(lost, lost, lost, ("a", 1, "answered"), ("a", 1, "answered"))).generation
    assert generation.majority == (1.0, 1)
    assert generation.answer_entropy == 0
    generation = make(
        None, **samples(("a", 0, "answered"), ("b", 1, "answered"), ("b", 1, "answered"), lost)
    ).generation
    assert generation.majority == (pytest.approx(2 / 3), 1)
    assert generation.answer_entropy == pytest.approx(entropy([1, 2]), abs=1e-12)


def test_self_consistency_is_undefined_where_all_samples_fail() -> None:
    record = make(None, **samples(("x", 0, "truncated"), ("y", 0, "empty")))
    assert record.generation.majority == (None, 0)
    assert record.generation.answer_entropy is None
    assert record.self_consistent()[2:4] == (None, 0)


def test_a_chain_s_windows() -> None:
    rng = np.random.default_rng(0)
    nats = rng.exponential(5, 11)
    chain = ChainConfidence.of(nats, k=20, window=4)
    assert (chain.k, chain.window, chain.n_tokens) == (20, 4, 11)
    np.testing.assert_allclose(chain.sums, [nats[:4].sum(), nats[4:8].sum(), nats[8:].sum()], rtol=0, atol=1e-12)
    np.testing.assert_allclose(chain.means, [nats[:4].mean(), nats[4:8].mean()], rtol=0, atol=1e-12)
    assert ChainConfidence.of(nats[:3], k=20, window=4).means == [pytest.approx(nats[:3].mean())]
    assert ChainConfidence.of([], k=20, window=4).means == []
    assert math.isclose(sum(chain.sums), nats.sum())
