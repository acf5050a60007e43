"""The grid of temperatures against float64 softmax(z / T), and through the backend."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.model import CachingLM
from lm_eval.models.dummy import DummyLM
from tiny import make_config, make_rows, run_tasks, scoring_requests

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, TEMPERATURES, token_scores
from lm_eval_calibration.backends.hf.temperature_grid import TemperatureGrid, on_device
from lm_eval_calibration.backends.hf.transfer import to_host
from lm_eval_calibration.records import RECORD_KEY, Record
from lm_eval_calibration.records.gap_sums import doc_gap_sums
from lm_eval_calibration.tasks import CalibratedTask


def naive(logits: torch.Tensor, temperature: float) -> np.ndarray:
    z = logits.double().numpy() / temperature
    weights = np.exp(z - z.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def drawn(kind: str, n: int = 7, vocab_size: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, vocab_size, generator=generator)
    if kind == "peaked":
        return 8 * z
    if kind == "flat":
        return 0.01 * z
    if kind == "many near 1%":  # below 0.01 at T = 1, above it at T = 0.5
        z = 0.1 * z - 12
        z[:, :60] = 0
        z[:, 60:] += 9
        return z
    if kind == "one entry has it all":
        z[:, 3] = 500
        return z
    if kind == "excluded entries":
        z[:, 100:] = -torch.inf
        return z
    return 3 * z


ZERO = torch.tensor([0])


def grid_of(logits: torch.Tensor, rows: torch.Tensor = ZERO, tokens: torch.Tensor = ZERO, **options: Any) -> Any:
    return TemperatureGrid(*to_host(*on_device(logits, rows, tokens, **options)))


KINDS = ("ordinary", "peaked", "flat", "many near 1%", "one entry has it all", "excluded entries")


def test_the_grid_holds_one_and_is_equally_spaced_in_its_reciprocals() -> None:
    assert (TEMPERATURES[0], TEMPERATURES[8], TEMPERATURES[-1]) == (3, 1, 0.5)
    np.testing.assert_allclose(np.diff(1 / np.array(TEMPERATURES)), 1 / 12, atol=1e-15)


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_softmax_of_z_over_t(kind: str, fixed_shape: bool) -> None:
    logits = drawn(kind)
    rows, tokens = torch.tensor([0, 0, 3, 6]), torch.tensor([3, 17, 999 if kind != "excluded entries" else 5, 0])
    scores = grid_of(logits, rows, tokens, fixed_shape=fixed_shape).scores(rows.tolist(), slice(4))
    for index, temperature in enumerate(TEMPERATURES):
        probs = naive(logits, temperature)[rows.numpy()]
        with np.errstate(divide="ignore"):
            expected = np.log(probs[np.arange(4), tokens.numpy()])
        found = scores.log_probs[:, index]
        reached = expected > -200  # float64 itself loses what is below 1e-300
        np.testing.assert_allclose(found[reached], expected[reached], atol=2e-5)
        for row, large in zip(probs, scores.large_probs(index), strict=True):
            wanted = np.sort(row[row >= 0.01])[::-1]
            np.testing.assert_allclose(np.sort(large)[::-1][: len(wanted)], wanted, atol=2e-6)
            assert np.all(np.sort(large)[::-1][len(wanted) :] < 0.01 + 1e-5)
            assert len(large) <= 101


def test_an_entry_below_the_threshold_at_one_temperature_may_be_above_it_at_another() -> None:
    logits = drawn("many near 1%")
    assert not (naive(logits, 1.0) >= 0.01).any()
    large = grid_of(logits).scores([0], slice(1)).large_probs(len(TEMPERATURES) - 1)[0]
    assert (large >= 0.01).sum() == 60


def test_half_precision_is_exact_to_its_logits() -> None:
    logits = drawn("ordinary").to(torch.bfloat16)
    log_sums = on_device(logits, ZERO, ZERO).log_sums
    np.testing.assert_allclose(np.exp(-log_sums[:, 8].numpy()), naive(logits.float(), 1.0).max(axis=1), rtol=1e-6)


def test_scores_are_picklable_and_small() -> None:
    scores = grid_of(drawn("peaked", vocab_size=50_000)).scores([1, 2], slice(1))
    copied: Any = pickle.loads(pickle.dumps(scores))
    np.testing.assert_array_equal(copied.log_probs, scores.log_probs)
    assert len(pickle.dumps(scores)) < 4000


def naive_run(lm: Any, context: list[int], continuation: list[int]) -> torch.Tensor:
    """Logits of the continuation's tokens by one plain forward, [n_tokens, vocab_size]."""
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*context, *continuation[:-1]]])).logits[0]
    return logits[-len(continuation) :]


def run(lm: Any, rows: list[dict[str, Any]], **options: Any) -> list[Record]:
    asked = {"calibration": {"temperatures": True, **options}}
    results = run_tasks(lm, [CalibratedTask(make_config(rows, metadata=asked))])
    samples = sorted(results["samples"]["letters_calibration"], key=lambda sample: sample["doc_id"])
    return [Record.from_dict(json.loads(json.dumps(sample[RECORD_KEY]))) for sample in samples]


@pytest.mark.parametrize("shared_prefixes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_records_hold_full_ece_and_log_likelihoods_at_every_temperature(gpt2_lm: Any, shared_prefixes: bool) -> None:
    rows = make_rows(5)
    records = run(gpt2_lm, rows, shared_prefixes=shared_prefixes, n_bins=15)
    for row, record in zip(rows, records, strict=True):
        context = gpt2_lm.tok_encode(f"{row['question']}\nAnswer:")
        held = record.temperatures
        assert held is not None
        assert held.grid == TEMPERATURES
        for k, choice in enumerate(row["choices"]):
            tokens = gpt2_lm.tok_encode(f" {choice}")
            logits = naive_run(gpt2_lm, context, tokens)
            for index, temperature in enumerate(TEMPERATURES):
                probs = naive(logits, temperature)
                expected = np.log(probs[np.arange(len(tokens)), tokens]).sum()
                assert held.log_likelihoods[k][index] == pytest.approx(expected, abs=1e-4)
                if k == row["answer"]:
                    gaps = metrics.position_gap_sums(probs, np.array(tokens), n_bins=15).sum(axis=0)
                    np.testing.assert_allclose(held.gap_sums[index], gaps, atol=1e-5)
        np.testing.assert_allclose(held.gap_sums[8], doc_gap_sums([record], 15)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2_lm", "t5_lm"])
def test_nothing_is_collected_unless_a_request_wants_it(name: str, request: pytest.FixtureRequest) -> None:
    lm = request.getfixturevalue(name)
    scores = token_scores(lm, scoring_requests(["a", "b"], [" c", " de"], temperatures=True))
    for score in scores:
        assert score.temperatures is not None
        np.testing.assert_allclose(score.temperatures.log_probs[:, 8], score.log_probs, atol=1e-4)
    assert all(s.temperatures is None for s in token_scores(lm, scoring_requests(["a", "b"], [" c", " de"])))


def test_cached_answers_without_the_grid_are_no_hit_when_it_is_wanted(gpt2_lm: Any, tmp_path: Any) -> None:
    cached = CachingLM(gpt2_lm, str(tmp_path / "cache.db"))

    def score(**wishes: Any) -> Any:
        return getattr(cached, SCORING_REQUEST_TYPE)(scoring_requests(["a"], [" b"], **wishes))[0].temperatures

    assert score() is None
    first = score(temperatures=True)
    gpt2_lm.loglikelihood = None  # must not be needed again
    try:
        np.testing.assert_equal(vars(score(temperatures=True)), vars(first))
    finally:
        del gpt2_lm.loglikelihood


def test_a_backend_without_distributions_leaves_it_out() -> None:
    assert run(DummyLM(), make_rows(2))[0].temperatures is None
