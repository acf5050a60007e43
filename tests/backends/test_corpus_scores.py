"""Texts of a corpus: the sums against every token's whole distribution, the log-likelihood against stock."""

import tracemalloc
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CachingLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny import make_gpt2, make_t5

from lm_eval_calibration import backends as scoring
from lm_eval_calibration import metrics
from lm_eval_calibration.backends import CorpusScores
from lm_eval_calibration.backends.hf import chunks
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


@pytest.mark.parametrize("positions", [1, 7, 100])
def test_logits_of_a_batch_are_computed_some_positions_at_a_time(
    gpt2_lm: Any, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests()
    at_once = scores(gpt2_lm, requests)
    monkeypatch.setitem(hf_corpus._CHUNK_ELEMENTS, "cpu", positions * len(gpt2_lm.tokenizer))
    monkeypatch.setattr(gpt2_lm, "batch_size_per_gpu", 4)
    logits, layers = [], []
    head, first = gpt2_lm.model.get_output_embeddings(), gpt2_lm.model.transformer.h[0]
    handles = [
        head.register_forward_hook(lambda _m, _i, output: logits.append(output.shape[:2].numel())),
        first.register_forward_hook(lambda *_: layers.append(1)),
    ]
    try:
        found = scores(gpt2_lm, requests)
    finally:
        for handle in handles:
            handle.remove()
    lengths = [len(text.encode()) for text in TEXTS]
    n_windows = sum(-(-length // gpt2_lm.max_length) for length in lengths)
    n_batches = -(-n_windows // 4)
    # On trial: eight tokens twice plainly, three of these, all of them in one call and in chunks of three; then the
    # call's own output, whose logits nobody reads.
    trial = [16, 3, 16, 3, 3, 3, 3, 3, 1, 1]
    assert logits[: len(trial)] == trial
    assert sum(logits[len(trial) :]) == sum(lengths) + n_batches
    assert max(logits[len(trial) :]) <= positions
    assert len(layers) == 4 + n_batches
    for a, b in zip(at_once, found, strict=True):
        assert a == pytest.approx(b, rel=1e-6)
        for one, other in zip(a.sums, b.sums, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", ["Gemma2", pytest.param("Cohere", marks=pytest.mark.slow)])
def test_what_a_model_makes_of_its_logits_it_makes_of_every_chunk(
    name: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 2 caps them, Cohere scales them."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = getattr(transformers, f"{name}Config")(
        vocab_size=258, max_position_embeddings=256, pad_token_id=0, eos_token_id=1, bos_token_id=1, **size
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight *= 100
    monkeypatch.setitem(hf_corpus._CHUNK_ELEMENTS, "cpu", 50 * 258)
    assert_chunked_like_stock(HFLM(pretrained=model, tokenizer=byte_tokenizer, device="cpu", batch_size=3))


def assert_chunked_like_stock(lm: Any) -> None:
    shapes = []
    handle = lm.model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    try:
        found = scores(lm, make_requests())
    finally:
        handle.remove()
    assert max(shape[:2].numel() for shape in shapes) == 50
    assert found == pytest.approx(lm.loglikelihood_rolling(make_requests()), rel=1e-6)


@pytest.mark.parametrize("name", ["T5", pytest.param("Bart", marks=pytest.mark.slow)])
def test_an_encoder_decoder_s_logits_are_computed_some_positions_at_a_time(
    name: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5 scales what its output layer sees, BART adds a bias; both would compute a loss of labels."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    model = make_t5(byte_tokenizer)
    if name == "Bart":
        shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 256}
        config = transformers.BartConfig(vocab_size=258, pad_token_id=0, decoder_start_token_id=0, **shape, **heads)
        torch.manual_seed(0)
        model = transformers.BartForConditionalGeneration(config).eval()
        model.final_logits_bias.normal_()
    monkeypatch.setitem(hf_corpus._CHUNK_ELEMENTS, "cpu", 50 * 258)
    options = {"backend": "seq2seq", "device": "cpu", "batch_size": 3, "max_length": 256}
    assert_chunked_like_stock(HFLM(pretrained=model, tokenizer=byte_tokenizer, **options))


@pytest.mark.parametrize("is_hooked", [False, True])
def test_where_other_ranks_would_have_to_call_the_layers_too_a_batch_is_computed_at_once(
    is_hooked: bool, gpt2_lm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "is_sharded", lambda _: True)
    monkeypatch.setattr(chunks.HFLM, "world_size", 2)
    monkeypatch.setattr(hf_corpus, "joint_calls", nullcontext)
    monkeypatch.setitem(hf_corpus._CHUNK_ELEMENTS, "cpu", 1)
    head, shapes = gpt2_lm.model.get_output_embeddings(), []
    handles = [head.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[1]))]
    if is_hooked:
        handles.append(head.register_forward_pre_hook(lambda *_: None))
    try:
        assert len(scores(gpt2_lm, make_requests(TEXTS[:1]))) == 1
    finally:
        for handle in handles:
            handle.remove()
    assert shapes[-1] == (len(TEXTS[0]) if is_hooked else 1)


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
