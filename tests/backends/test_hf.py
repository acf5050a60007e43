import importlib
import logging
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import make_gpt2, scoring_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends.hf import forward
from lm_eval_calibration.backends.hf.log_likelihood import score
from lm_eval_calibration.backends.hf.output_layer import Spared
from lm_eval_calibration.backends.registry import find

CONTEXTS = ["Question: 1+1?\nAnswer:", "a", "Once upon a time ", "", "left end is cut off " * 30]
CONTINUATIONS = [" A", " B", "C", " some more words", " A"]


def make_requests(
    contexts: list[str] = CONTEXTS, continuations: list[str] = CONTINUATIONS, *, shared: bool = True
) -> list[Instance]:
    return scoring_requests(contexts, continuations, shared_prefixes=shared)


def naive_probs(lm: Any, request: Instance) -> tuple[np.ndarray, list[int]]:
    """Full-vocabulary float64 distributions at the continuation's positions, one request at a time."""
    context, continuation = request.args
    if context == "":
        context_tokens, tokens = [lm.prefix_token_id], lm.tok_encode(continuation, add_special_tokens=False)
    else:
        context_tokens, tokens = lm._encode_pair(context, continuation)
    with torch.no_grad():
        if lm.backend == "causal":
            inputs = (context_tokens + tokens)[-(lm.max_length + 1) :][:-1]
            logits = lm.model(torch.tensor([inputs])).logits[0, -len(tokens) :]
        else:
            inputs = torch.tensor([context_tokens[-lm.max_length :]])
            logits = lm.model(input_ids=inputs, labels=torch.tensor([tokens])).logits[0]
    z = logits.double().numpy()
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True), tokens


def largest_difference(stock: list[Any], ours: list[Any]) -> float:
    """In log-likelihood per token."""
    return max(abs(a[0] - b[0]) / len(b.log_probs) for a, b in zip(stock, ours, strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, pytest.param("auto", marks=pytest.mark.slow)])
def test_equals_the_stock_backend(either_lm: Any, batch_size: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = either_lm
    lm.batch_size_per_gpu, lm.batch_schedule = batch_size, 1
    monkeypatch.setattr(lm, "max_batch_size", 8)  # where the automatic one begins
    requests = make_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert largest_difference(stock, ours) < 1e-5
    assert [a[1] for a in stock] == [b[1] for b in ours]


def test_equals_raw_full_vocabulary_logits(either_lm: Any) -> None:
    requests = make_requests()
    for request, scores in zip(requests, scoring.token_scores(either_lm, requests), strict=True):
        probs, tokens = naive_probs(either_lm, request)
        expected = probs[np.arange(len(tokens)), tokens]
        np.testing.assert_allclose(np.exp(scores.log_probs), expected, atol=2e-6)
        assert scores[0] == pytest.approx(np.log(expected).sum(), abs=1e-4)
        assert scores.vocab_size == probs.shape[1]
        assert len(scores.large_probs) == len(tokens)
        for row, large in zip(probs, scores.large_probs, strict=True):
            wanted = np.sort(row[row >= scoring.MIN_LARGE_PROB])
            np.testing.assert_allclose(np.sort(large)[len(large) - len(wanted) :], wanted, atol=2e-6)


def test_padded_vocabulary_rows_are_part_of_the_distribution(byte_tokenizer: Any) -> None:
    padded = len(byte_tokenizer) + 62
    lm = HFLM(pretrained=make_gpt2(byte_tokenizer, vocab_size=padded), tokenizer=byte_tokenizer, device="cpu")
    request = make_requests(["abc"], [" d"])[0]
    (scores,) = scoring.token_scores(lm, [request])
    probs, tokens = naive_probs(lm, request)
    assert scores.vocab_size == probs.shape[1] == padded
    np.testing.assert_allclose(np.exp(scores.log_probs), probs[[0, 1], tokens], rtol=1e-5)


def test_a_matrix_product_s_rounding_is_no_reason_to_compute_all_logits(
    byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture
) -> None:
    model = make_gpt2(byte_tokenizer)
    head = model.lm_head.forward
    # As BLAS does: another number of rows, another order of the sum.
    model.lm_head.forward = lambda hidden: head(hidden) * (1 + 2e-6 * (hidden.shape[-2] % 3))
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, device="cpu")
    harness_log.clear()
    scoring.token_scores(lm, make_requests())
    assert "using all logits" not in harness_log.text


def test_one_forward_for_each_context(gpt2_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    stock = HFLM._model_call
    monkeypatch.setattr(forward, "spared", lambda *_: Spared(True, True))
    monkeypatch.setattr(HFLM, "_model_call", lambda self, *a, **k: shapes.append(a[0].shape) or stock(self, *a, **k))
    scoring.token_scores(gpt2_lm, make_requests(["one", "two", "three"], ["A", "B", "C", "D"], shared=False))
    assert sum(rows for rows, _ in shapes) == 3


def test_logits_only_where_they_are_needed(gpt2_lm: Any) -> None:
    seen = []
    layer = gpt2_lm.model.get_output_embeddings()
    with_hook = layer.register_forward_hook(lambda _m, _i, output: seen.append(output.shape[:2].numel()))
    try:
        scoring.token_scores(gpt2_lm, make_requests(["a long context" * 5], [" A", " B", " Canberra"], shared=False))
    finally:
        with_hook.remove()
    # Eight tokens twice for comparison, three to try it on; then 2 positions for A and B, 9 for Canberra.
    assert seen == [16, 3, 2 + 9]


def test_a_model_that_bypasses_its_output_layer_uses_all_logits(
    byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_gpt2(byte_tokenizer)
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, device="cpu", batch_size=2)
    expected = scoring.token_scores(lm, make_requests())
    # As custom code does that multiplies by the weight itself: the layer it names is never called.
    monkeypatch.setattr(model, "get_output_embeddings", lambda: torch.nn.Linear(32, 4))
    harness_log.clear()
    ours = scoring.token_scores(lm, make_requests())
    assert [s[0] for s in ours] == pytest.approx([s[0] for s in expected], abs=1e-4)
    assert "using all logits" in harness_log.text


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own use of transformers
def test_prompt_tuning_tokens_before_the_inputs(byte_tokenizer: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(make_gpt2(byte_tokenizer), config).eval()
    lm = HFLM(
        pretrained=model,
        tokenizer=byte_tokenizer,
        backend="causal",
        device="cpu",
        batch_size=2,
        max_length=200,
    )
    requests = make_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    plain = HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, device="cpu", max_length=200)
    assert largest_difference(stock, scoring.token_scores(lm, requests)) < 1e-5
    assert largest_difference(stock, scoring.token_scores(plain, requests)) > 1e-3  # the virtual tokens matter


def test_the_plain_path_keeps_no_cache(gpt2_lm: Any) -> None:
    caches = []
    handle = gpt2_lm.model.register_forward_hook(lambda _m, _i, output: caches.append(output.past_key_values))
    try:
        scoring.token_scores(gpt2_lm, make_requests(["one", "two", "three"], ["A", "B and C"], shared=False))
    finally:
        handle.remove()
    assert sum(cache is not None for cache in caches) == 1  # the plain call, for comparison
    assert len(caches) > 2


def test_a_model_that_needs_its_cache_keeps_it(gpt2_lm: Any) -> None:
    class PassesKeysOn(type(gpt2_lm.model)):  # type: ignore[misc]
        def forward(self, *arguments: Any, use_cache: bool | None = None, **options: Any) -> Any:
            output = super().forward(*arguments, use_cache=use_cache, **options)
            if use_cache is False:
                output.logits = output.logits + torch.arange(output.logits.shape[-1])
            return output

    model = PassesKeysOn(gpt2_lm.model.config).eval()
    lm = HFLM(pretrained=model, tokenizer=gpt2_lm.tokenizer, device="cpu", batch_size=3)
    requests = make_requests(["one", "two"], ["A", "B and C"], shared=False)
    assert largest_difference(lm.loglikelihood(requests, disable_tqdm=True), scoring.token_scores(lm, requests)) < 1e-5


def test_a_backend_s_own_model_call_is_used(gpt2_lm: Any) -> None:
    class Steered(HFLM):
        def _model_call(self, *arguments: Any, **options: Any) -> Any:
            shift = torch.nn.functional.one_hot(torch.tensor(40), 258) * 3.0
            return super()._model_call(*arguments, **options) + shift

    lm = Steered(pretrained=gpt2_lm.model, tokenizer=gpt2_lm.tokenizer, backend="causal", device="cpu")
    requests = make_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    assert largest_difference(stock, scoring.token_scores(lm, requests)) < 1e-5
    assert largest_difference(stock, scoring.token_scores(gpt2_lm, requests)) > 1e-3


def test_the_harness_s_steered_backend(byte_tokenizer: Any, tmp_path: Any) -> None:
    from lm_eval.models.hf_steered import SteeredModel

    make_gpt2(byte_tokenizer).save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    vector = torch.linspace(-1, 1, 32)
    steer = {"h.0": {"steering_vector": vector, "steering_coefficient": 1.0, "action": "add"}}
    torch.save(steer, tmp_path / "steer.pt")
    lm = SteeredModel(str(tmp_path), str(tmp_path / "steer.pt"), device="cpu", dtype="float32")
    plain = HFLM(str(tmp_path), device="cpu", dtype="float32")
    requests = make_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    assert largest_difference(stock, scoring.token_scores(lm, requests)) < 1e-5
    assert largest_difference(stock, scoring.token_scores(plain, requests)) > 1e-3


def test_a_backend_that_scores_in_its_own_way_falls_back(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    class Multimodal(HFLM):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [(-float(i), False) for i, _ in enumerate(requests)]

    lm = Multimodal(pretrained=gpt2_lm.model, tokenizer=gpt2_lm.tokenizer, backend="causal", device="cpu")
    harness_log.clear()
    ours = scoring.token_scores(lm, make_requests(["a"], ["b", "c"]))
    assert ours == [(-0.0, False), (-1.0, False)]
    assert not any(scores.has_distributions for scores in ours)
    assert (
        "Multimodal gives no token distributions (it has a loglikelihood of its own): full_ece is left out"
        in harness_log.text
    )


@pytest.mark.parametrize(("module", "name"), [("hf_vlms", "HFMultimodalLM"), ("hf_audiolm", "HFAUDIOLMQWEN")])
def test_the_harness_s_multimodal_backends_fall_back(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.models
    from lm_eval.api.registry import model_registry

    # 0.4.13 announces the audio model under another class name than it registers: importing it raises.
    monkeypatch.setattr(model_registry, "_objs", {})
    cls = getattr(importlib.import_module(f"{lm_eval.models.__name__}.{module}"), name)
    assert find(cls.__new__(cls), scoring.SCORING_REQUEST_TYPE) == (None, "it has a loglikelihood of its own")


def test_backends_with_stock_scoring_are_ours() -> None:
    from lm_eval.models.mamba_lm import MambaLMWrapper
    from lm_eval.models.mistral3 import Mistral3LM

    for cls in (HFLM, MambaLMWrapper, Mistral3LM):
        assert find(cls.__new__(cls), scoring.SCORING_REQUEST_TYPE)[0] is score


def test_a_thinking_model_scores_the_texts_that_it_is_given(gpt2_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock refuses every request; here tasks refuse docs with choices, and score answers after a closed thought."""
    expected = scoring.token_scores(gpt2_lm, make_requests())
    monkeypatch.setattr(gpt2_lm, "enable_thinking", True)
    with pytest.raises(ValueError, match="enable_thinking=True is not compatible"):
        gpt2_lm.loglikelihood(make_requests())
    assert scoring.token_scores(gpt2_lm, make_requests()) == expected
    assert gpt2_lm.enable_thinking
    assert "_loglikelihood_tokens" not in vars(gpt2_lm)


def test_bfloat16(byte_tokenizer: Any) -> None:
    lm = HFLM(pretrained=make_gpt2(byte_tokenizer).bfloat16(), tokenizer=byte_tokenizer, device="cpu", batch_size=4)
    requests = make_requests(shared=False)
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    # The stock run rounds each log-probability to 8 bits; ours are exact to the (bfloat16) logits.
    assert largest_difference(stock, ours) < 0.05
    exact = lm.__class__(pretrained=lm.model, tokenizer=byte_tokenizer, device="cpu", batch_size=4)
    exact.softmax_dtype = torch.float32
    assert largest_difference(exact.loglikelihood(requests, disable_tqdm=True), ours) < 1e-4
    assert ours[0].certificate["dtype"] == "bfloat16"


def test_in_bfloat16_an_answer_differs_only_where_stock_s_best_two_are_close(byte_tokenizer: Any) -> None:
    model = make_gpt2(byte_tokenizer)
    with torch.no_grad():
        model.lm_head.weight /= 20  # nearly flat: a stock run rounds log-probabilities near -5.5 to steps of 0.03
    lm = HFLM(pretrained=model.bfloat16(), tokenizer=byte_tokenizer, device="cpu", batch_size=8)
    requests = make_requests([f"Question {i}:" for i in range(100)], ["A", "B", "C", "D"])
    stock = np.array([a[0] for a in lm.loglikelihood(requests, disable_tqdm=True)]).reshape(-1, 4)
    ours = np.array([a[0] for a in scoring.token_scores(lm, requests)]).reshape(-1, 4)
    differ = np.flatnonzero(stock.argmax(1) != ours.argmax(1))
    best = np.sort(stock, axis=1)[differ]
    assert len(differ) > 0
    assert (best[:, -1] - best[:, -2] <= 2 * np.abs(stock - ours)[differ].max(1)).all()


def test_nan_logits_name_the_doc_and_are_no_scores(byte_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = make_gpt2(byte_tokenizer)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, device="cpu")
    (scores,) = scoring.token_scores(lm, make_requests(["x"], [" A"]))
    assert np.isnan(scores[0])
    assert not scores.has_distributions
    assert "a_task doc 0 choice 0: the model's logits hold NaN" in caplog.text


def test_a_continuation_without_tokens_names_the_doc(gpt2_lm: Any) -> None:
    with pytest.raises(ValueError, match=r"a_task doc 0 choice 0.*: the continuation has 0 tokens"):
        scoring.token_scores(gpt2_lm, make_requests(["x"], [""]))


def test_long_prompts_are_counted_in_one_line(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    scoring.token_scores(gpt2_lm, make_requests())
    assert "5 of 25 prompts are longer than the model's 256 tokens" in harness_log.text


def test_seq2seq_requests_share_a_forward_too(t5_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    stock = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, *a, **k: rows.append(len(a[0])) or stock(self, *a, **k))
    scoring.token_scores(t5_lm, make_requests(["one", "two"], ["A", "B", "C", "D"]))
    assert rows == [2, 2]  # two to try whether it is safe, then one for each context


def test_an_encoder_decoder_that_starts_from_the_last_label_shares_nothing(byte_tokenizer: Any) -> None:
    from transformers import MBartConfig, MBartForConditionalGeneration

    torch.manual_seed(0)
    size = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 300}
    tokens = {"vocab_size": len(byte_tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    model = MBartForConditionalGeneration(MBartConfig(**size, **heads, **tokens, init_std=0.5)).eval()
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, backend="seq2seq", device="cpu", max_length=256)
    requests = make_requests(["Question: 1+1?\nAnswer:", "other"], ["A", "B", "C", "DE"])
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    assert largest_difference(stock, scoring.token_scores(lm, requests)) < 1e-5


def test_no_progress_bar_leaks_into_other_ranks(
    gpt2_lm: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for rank, shown in ((0, True), (1, False)):
        monkeypatch.setattr(gpt2_lm, "_rank", rank)
        scoring.token_scores(gpt2_lm, make_requests(["x"], [" A"]))
        assert ("Running token-score requests" in capsys.readouterr().err) == shown
