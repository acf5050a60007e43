"""Texts of a corpus: the sums against every token's whole distribution, the log-likelihood against stock."""

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CachingLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny import make_gpt2

from lm_eval_calibration import backends as scoring
from lm_eval_calibration import metrics
from lm_eval_calibration.backends import CorpusScores
from lm_eval_calibration.backends.hf import corpus as hf_corpus
from lm_eval_calibration.backends.registry import find
from lm_eval_calibration.metrics.binning import bin_index, bin_sums

scoring.install()

TEXTS = ["A short text.", "", "x", "Many windows are needed for this one. " * 30, "é" * 128, "Of two windows " * 25]


def make_requests(texts: Sequence[str] = TEXTS, n_bins: int = 10) -> list[Instance]:
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0, metadata=("t", i, 1)) for i, text in enumerate(texts)]
    for request in requests:
        request.n_bins = n_bins
    return requests


def scores(lm: Any, requests: list[Instance]) -> list[CorpusScores]:
    answers: list[CorpusScores] = getattr(lm, scoring.CORPUS_REQUEST_TYPE)(requests)
    return answers


def naive_distributions(lm: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Float64 distributions of all tokens, window by window, and the tokens."""
    probs, tokens = [], []
    windows = get_rolling_token_windows(lm.tok_encode(text), lm.prefix_token_id, lm.max_length, 1)
    for context, window in map(make_disjoint_window, windows):
        with torch.no_grad():
            if lm.backend == "causal":
                logits = lm.model(torch.tensor([context + window[:-1]])).logits[0, -len(window) :]
            else:
                logits = lm.model(input_ids=torch.tensor([context]), labels=torch.tensor([window])).logits[0]
        probs.append(logits.double().softmax(-1).numpy())
        tokens += window
    return np.concatenate(probs), np.array(tokens)


@pytest.mark.parametrize(("batch_size", "n_bins"), [pytest.param(1, 10, marks=pytest.mark.slow), (4, 15)])
def test_sums_are_those_of_the_whole_distributions(either_lm: Any, batch_size: int, n_bins: int) -> None:
    lm = either_lm
    lm.batch_size_per_gpu = batch_size
    for text, ours in zip(TEXTS, scores(lm, make_requests(n_bins=n_bins)), strict=True):
        assert ours.sums is not None
        if not text:
            assert (float(ours), ours.n_tokens) == (0.0, 0)
            assert all((part == 0).all() for part in ours.sums)
            continue
        probs, tokens = naive_distributions(lm, text)
        confidence, index = probs.max(1), bin_index(probs.max(1), n_bins)
        correct = probs.argmax(1) == tokens
        assert ours.n_tokens == len(tokens)
        expected = metrics.position_gap_sums(probs, tokens, n_bins=n_bins).sum(0)
        np.testing.assert_allclose(ours.sums.gap_sums, expected, atol=2e-4)
        np.testing.assert_array_equal(ours.sums.top_count, np.bincount(index, minlength=n_bins))
        np.testing.assert_allclose(ours.sums.top_confidence, bin_sums(index, confidence, n_bins), atol=2e-4)
        np.testing.assert_array_equal(ours.sums.top_correct, np.bincount(index[correct], minlength=n_bins))
        assert float(ours) == pytest.approx(np.log(probs[np.arange(len(tokens)), tokens]).sum(), rel=1e-5)


def test_log_likelihoods_are_the_stock_run_s(either_lm: Any) -> None:
    either_lm.batch_size_per_gpu = 4
    requests = make_requests()
    # float32, and the stock run orders the rows of a batch otherwise
    assert scores(either_lm, requests) == pytest.approx(either_lm.loglikelihood_rolling(requests), rel=1e-6)


def test_texts_of_one_run_may_want_different_bins(gpt2_lm: Any) -> None:
    requests = make_requests(TEXTS[:1], 10) + make_requests(TEXTS[:1], 15)
    assert [len(answer.sums.gap_sums) for answer in scores(gpt2_lm, requests)] == [10, 15]


def test_broken_logits_are_an_error_that_names_the_doc(byte_tokenizer: Any, gpt2_lm: Any) -> None:
    from lm_eval.models.huggingface import HFLM

    model = make_gpt2(byte_tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = float("nan")
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, backend="causal", device="cpu", batch_size=1)
    with pytest.raises(ValueError, match="t doc 0: the model's logits hold NaN or infinity"):
        scores(lm, make_requests())


class RollingLM(LM):
    """A backend with log-likelihoods only."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        self.asked += [request.args[0] for request in requests]
        return [-float(len(request.args[0])) for request in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError


def test_any_backend_gives_its_log_likelihoods_and_says_what_it_lacks(harness_log: pytest.LogCaptureFixture) -> None:
    answers = scores(RollingLM(), make_requests(["ab", "c"]))
    assert answers == [-2.0, -1.0]
    assert [answer.has_distributions for answer in answers] == [False, False]
    assert "full_ece, ece and token_accuracy are left out, perplexities are complete" in harness_log.text


def test_a_backend_with_a_rolling_method_of_its_own_is_asked_by_it(gpt2_lm: Any) -> None:
    class Own(type(gpt2_lm)):  # type: ignore[misc]
        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            return [-1.0] * len(requests)

    lm = Own(pretrained=gpt2_lm.model, tokenizer=gpt2_lm.tokenizer, backend="causal", device="cpu")
    assert find(lm, scoring.CORPUS_REQUEST_TYPE) == (None, "it has a loglikelihood_rolling of its own")
    assert scores(lm, make_requests()) == [-1.0] * len(TEXTS)


def test_use_cache_answers_again_without_the_model(tmp_path: Any, gpt2_lm: Any, monkeypatch: Any) -> None:
    path = str(tmp_path / "cache.db")
    plain = RollingLM()
    assert scores(CachingLM(plain, path), make_requests(TEXTS[:2])) == [-float(len(text)) for text in TEXTS[:2]]
    first = scores(CachingLM(gpt2_lm, path), make_requests(TEXTS[:3]))  # what the plain one lacked is asked for
    assert all(answer.has_distributions for answer in first)
    calls: list[int] = []
    stock = gpt2_lm._model_call
    monkeypatch.setattr(gpt2_lm, "_model_call", lambda *a, **k: calls.append(1) or stock(*a, **k))
    again = scores(CachingLM(gpt2_lm, path), make_requests(TEXTS[:3]))
    assert again == first
    assert not calls
    scores(CachingLM(gpt2_lm, path), make_requests(TEXTS[:3], n_bins=15))  # other bins are other sums
    assert calls


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(gpt2_lm: Any) -> None:
    text = "some words of a text " * 20  # 420 tokens

    def peak(n_texts: int) -> int:
        """Bytes of Python and NumPy objects at the peak, beyond the texts and the sums that are the answer."""
        requests = make_requests([text] * n_texts)
        tracemalloc.start()
        hf_corpus.score(gpt2_lm, requests, lambda *_: None)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(2)
    all_windows = 26 * len(text) * 2 * 8  # what 26 texts more would take, each token twice in a list
    assert peak(30) < peak(4) + all_windows / 2
