"""Beginnings computed once: the same numbers as the stock run, for every kind of model that allows it."""

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from architectures import (
    NOT_SHARING,
    QUICK,
    SHARING,
    WINDOW,
    gemma3,
    load,
    mistral,
    only_masks,
    per_token,
    shared,
    slow,
)
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import make_t5, scoring_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends.hf import cost, log_likelihood, packed, trial

pytestmark = pytest.mark.usefixtures("launching_a_pack_costs_no_more")


def few_shot_requests(seed: int = 0) -> list[Instance]:
    """Subjects with examples of their own; ragged questions; choices of one and of several tokens; one doc twice."""
    rng = random.Random(seed)
    contexts = []
    for subject in ("art", "biology"):
        examples = "".join(f"{subject} {rng.randrange(10**6)}? {rng.choice('ABCD')}\n" for _ in range(4))
        contexts += [f"{examples}{subject} {'why ' * rng.randrange(1, 6)}{i}?" for i in range(6)]
    contexts += [contexts[0], "nothing like it", "much too long " * 30 + "a", "much too long " * 30 + "b"]
    requests = scoring_requests(contexts, [" A", " B", "Canberra", " Can", "\n"])
    alone = Instance("loglikelihood", {}, ("0123456789 has no company", " A"), 0, metadata=("a_task", len(contexts), 1))
    return [*requests, alone]


@pytest.mark.parametrize(
    ("kind", "batch_size"),
    [
        *((kind, 3) for kind in QUICK),
        *(slow(kind, 3) for kind in SHARING if kind not in QUICK),
        *(slow("Llama, grouped queries", 1), slow("Gemma 3", 8)),
    ],
)
def test_shared_beginnings_equal_the_stock_run(kind: str, batch_size: int, byte_tokenizer: Any) -> None:
    lm = load(SHARING[kind](), byte_tokenizer, batch_size=batch_size)
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert per_token(stock, ours) < 1e-4
    assert [a[1] for a in stock] == [b[1] for b in ours]
    assert shared(ours) == {True, False}
    requests[3].shared_prefixes = False  # one forward serves all
    plain = scoring.token_scores(lm, requests)
    assert shared(plain) == {False}
    assert per_token(stock, plain) < 1e-5
    for a, b in zip(plain, ours, strict=True):
        np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-4)
        for p, q in zip(a.large_probs, b.large_probs, strict=True):
            large = [np.sort(x[x >= 0.011]) for x in (p, q)]
            np.testing.assert_allclose(large[0], large[1], atol=1e-4)
        assert a.vocab_size == b.vocab_size


@pytest.mark.parametrize("kind", [slow("Mamba"), "Bloom", slow("MPT")])
def test_models_that_can_t_share_fall_back_with_one_line(
    kind: str, byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture
) -> None:
    lm = load(NOT_SHARING[kind](), byte_tokenizer, max_length=256)
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    harness_log.clear()
    ours = scoring.token_scores(lm, requests)
    assert harness_log.text.count("prompts don't share prefixes") == 1
    assert per_token(stock, ours) < 1e-5
    assert shared(ours) == {False}


def packs_of(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packs hold so many tokens, on a device where a call costs nothing but its operations."""
    monkeypatch.setattr(cost, "CPU", cost.CPU._replace(launch=0.0, bandwidth=1e18, most_tokens=most))


def read_by(lm: Any) -> list[int]:
    """Fill a list with the tokens of each call of the model from now on."""
    read: list[int] = []
    lm.model.register_forward_pre_hook(
        lambda _, arguments, named: read.append((*arguments, named.get("input_ids"))[0].numel()), with_kwargs=True
    )
    return read


def test_a_run_too_small_for_the_trial_shares_nothing(byte_tokenizer: Any) -> None:
    requests = scoring_requests(["ab", "ac"], [" A", " B"])
    assert shared(scoring.token_scores(load(mistral(), byte_tokenizer), requests)) == {False}


def test_a_trial_without_memory_is_not_remembered(
    byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("2 GiB wanted")

    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer, batch_size=64)
    requests = few_shot_requests()
    with monkeypatch.context() as patched:
        patched.setattr(trial, "_try", full)
        assert shared(scoring.token_scores(lm, requests)) == {False}
    assert "no memory is left to try it" in harness_log.text
    assert True in shared(scoring.token_scores(lm, requests))


def test_the_trial_reads_little_and_once_a_model(byte_tokenizer: Any) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer, batch_size=64)
    requests = few_shot_requests()
    read = read_by(lm)
    scoring.token_scores(lm, requests)
    first = sum(read)
    read.clear()
    scoring.token_scores(lm, requests)
    assert 0 < first - sum(read) <= 0.05 * sum(read)
    assert (first - sum(read)) % trial.Size(1, 1).tokens == 0


@pytest.mark.slow
def test_an_encoder_decoder_shares_nothing(byte_tokenizer: Any) -> None:
    lm = load(make_t5(byte_tokenizer), byte_tokenizer, backend="seq2seq", max_length=256)
    requests = few_shot_requests()
    ours = scoring.token_scores(lm, requests)
    assert per_token(lm.loglikelihood(requests, disable_tqdm=True), ours) < 1e-5
    assert shared(ours) == {False}


@pytest.mark.parametrize("kind", ["Llama, grouped queries", slow("Gemma 3")])
def test_the_order_of_requests_changes_nothing(kind: str, byte_tokenizer: Any) -> None:
    lm = load(SHARING[kind](), byte_tokenizer)
    requests = few_shot_requests()
    order = list(range(len(requests)))
    random.Random(3).shuffle(order)
    straight = scoring.token_scores(lm, requests)
    shuffled = scoring.token_scores(lm, [requests[i] for i in order])
    assert [a[0] for a in shuffled] == pytest.approx([straight[i][0] for i in order], abs=1e-5)


def test_equal_docs_get_equal_answers(byte_tokenizer: Any) -> None:
    requests = few_shot_requests()
    answers = scoring.token_scores(load(mistral(), byte_tokenizer), requests)
    same = [i for i, request in enumerate(requests) if request.doc_id == 12]
    assert [tuple(answers[i]) for i in same] == [tuple(answer) for answer in answers[: len(same)]]


@pytest.mark.parametrize("most", [slow(1), 30, slow(10_000)])
def test_packs_of_any_size_give_the_same(most: int, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load(gemma3(), byte_tokenizer)
    requests = few_shot_requests()
    packs_of(most, monkeypatch)
    ours = scoring.token_scores(lm, requests)
    assert per_token(lm.loglikelihood(requests, disable_tqdm=True), ours) < 1e-4
    assert True in shared(ours)


def test_a_beginning_is_read_once_and_logits_are_made_where_scored(
    byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer, batch_size=64)
    begins = "the same three hundred tokens " * 6
    contexts = [f"{begins}{word}?" for word in itertools.permutations("abc")]
    requests = scoring_requests(contexts, (" A", " B", " C", " D"))
    read, logits = [], []
    body, head = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    hooks = [
        body.register_forward_hook(lambda _m, _i, output: read.append(output.shape[:2].numel())),
        head.register_forward_hook(lambda _m, _i, output: logits.append(output.shape[:2].numel())),
    ]
    try:
        scoring.token_scores(lm, requests)
    finally:
        for hook in hooks:
            hook.remove()
    trials = 2 * 16 + 2 * len(f"{begins}('a', 'b', 'c')? ")
    assert sum(read) < trials + len(begins) + 6 * 20
    assert max(logits) < 40


@pytest.mark.parametrize("kind", ["Gemma 3", *(slow(kind) for kind in SHARING if kind != "Gemma 3")])
def test_a_mask_gives_the_same(
    kind: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, harness_log: pytest.LogCaptureFixture
) -> None:
    only_masks(monkeypatch)
    lm = load(SHARING[kind](), byte_tokenizer)
    requests = few_shot_requests()
    harness_log.clear()
    ours = scoring.token_scores(lm, requests)
    assert "prompts share prefixes by a mask (its attention can't be chosen)" in harness_log.text
    assert per_token(lm.loglikelihood(requests, disable_tqdm=True), ours) < 1e-4
    assert True in shared(ours)


@pytest.mark.parametrize("name", ["flash_attention_2", slow("flex_attention"), slow("a kernel from elsewhere")])
def test_any_attention_that_transformers_can_choose_shares(
    name: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels are not here: SDPA, given no mask, stands in for the plain path's."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    requests = few_shot_requests()
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer)
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(type(ALL_ATTENTION_FUNCTIONS)._global_mapping, name, lambda *a, **k: sdpa(*a[:4], None, **k))
    monkeypatch.setitem(type(ALL_MASK_ATTENTION_FUNCTIONS)._global_mapping, name, lambda **_: None)
    lm.model.config._attn_implementation = name
    ours = scoring.token_scores(lm, requests)
    assert True in shared(ours)
    assert per_token(stock, ours) < 1e-4
    assert lm.model.config._attn_implementation == name


def _deaf(model: Any) -> Any:
    """As custom code may: whatever mask comes, only ordinary causal attention happens."""
    forward = model.forward

    def ignoring(*arguments: Any, attention_mask: Any = None, **options: Any) -> Any:
        return forward(*arguments, **options)

    model.forward = ignoring
    return model


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda: _deaf(SHARING["Llama, grouped queries"]()), torch.float32),
        slow(lambda: _deaf(SHARING["GPT-2"]()), torch.float32),
        slow(lambda: _deaf(SHARING["Llama, grouped queries"]()), torch.bfloat16),
    ],
)
def test_the_trial_catches_a_model_that_ignores_the_mask(
    make: Callable[[], Any],
    dtype: torch.dtype,
    byte_tokenizer: Any,
    harness_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_masks(monkeypatch)
    lm = load(make().to(dtype), byte_tokenizer)
    requests = few_shot_requests()
    harness_log.clear()
    ours = scoring.token_scores(lm, requests)
    assert re.search(r"prompts don't share prefixes \(.*its logits differ", harness_log.text)
    assert shared(ours) == {False}
    if dtype == torch.float32:
        assert per_token(lm.loglikelihood(requests, disable_tqdm=True), ours) < 1e-5


def test_the_trial_catches_a_window_of_another_size(
    byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_masks(monkeypatch)
    lm = load(mistral(), byte_tokenizer)
    requests = few_shot_requests()
    mask = packed.PackedForward._mask

    def wrong(self: Any, *step: Any) -> torch.Tensor:
        self.config = type("Config", (), {"sliding_window": WINDOW - 1, "_attn_implementation": "sdpa"})
        return mask(self, *step)

    monkeypatch.setattr(packed.PackedForward, "_mask", wrong)
    harness_log.clear()
    ours = scoring.token_scores(lm, requests)
    assert "its logits differ alone" in harness_log.text
    assert shared(ours) == {False}


@pytest.mark.parametrize("dtype", [slow(torch.bfloat16), slow(torch.float16)])
def test_half_precision_shares_within_its_rounding(dtype: torch.dtype, byte_tokenizer: Any) -> None:
    lm = load(gemma3().to(dtype), byte_tokenizer)
    lm.softmax_dtype = torch.float32
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert True in shared(ours)
    assert per_token(stock, ours) < 20 * torch.finfo(dtype).eps * 4
    assert {answer.certificate["dtype"] for answer in ours} == {str(dtype).removeprefix("torch.")}


@pytest.mark.slow
def test_autocast_is_the_backend_s(byte_tokenizer: Any) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer, mixed_precision_dtype="bfloat16")
    assert lm.mixed_precision_dtype == torch.bfloat16
    lm.softmax_dtype = torch.float32
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert True in shared(ours)
    assert {answer.certificate["dtype"] for answer in ours} == {"bfloat16"}
    assert per_token(stock, ours) < 0.5


def test_refusals_name_their_reason(byte_tokenizer: Any) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer)
    assert packed.reason_unsupported(lm, 100) is None
    lm.model.config.layer_types = ["full_attention", "chunked_attention"]
    assert packed.reason_unsupported(lm, 100) == "it has layers of type chunked_attention"


def test_a_model_without_a_transformers_configuration_is_refused(byte_tokenizer: Any) -> None:
    class Lm(HFLM):
        model = type("Model", (), {"config": type("Config", (), {})})  # as mamba_ssm's

    assert packed.reason_unsupported(Lm.__new__(Lm), 100) == "its configuration names no attention"


def test_a_length_dependent_position_encoding_is_refused_beyond_its_first_length(byte_tokenizer: Any) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer)
    lm.model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    assert packed.reason_unsupported(lm, 64) is None
    assert packed.reason_unsupported(lm, 65) == "its position encoding depends on the prompt's length"


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, fails: Callable[[int, int], bool]) -> list[int]:
    """Let packs fail by their number and tokens; return the list of their tokens."""
    forward = packed.PackedForward.__call__
    sizes: list[int] = []

    def call(self: Any, step: Any, columns: Any) -> torch.Tensor:
        if self.multiple == 1 and not step.rows and step.base == 0 and not sizes:
            return forward(self, step, columns)
        sizes.append(len(step.tokens))
        if fails(len(sizes), sizes[-1]):
            raise error
        return forward(self, step, columns)

    monkeypatch.setattr(packed.PackedForward, "__call__", call)
    return sizes


def test_what_a_pack_has_scored_is_kept_when_the_next_dies(
    byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer)
    requests = few_shot_requests()
    scoring.token_scores(lm, requests)  # the trial
    packs_of(60, monkeypatch)
    failing(monkeypatch, RuntimeError("lost"), lambda number, _: number == 15)
    kept: list[int] = []
    with pytest.raises(RuntimeError, match="lost"):
        log_likelihood.score(lm, requests, lambda index, _: kept.append(index))
    assert 0 < len(kept) == len(set(kept)) < len(requests)


@pytest.mark.parametrize("most", [150, slow(1)])
def test_where_memory_doesn_t_suffice_packs_get_smaller(
    most: int, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = load(SHARING["Llama, grouped queries"](), byte_tokenizer)
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    scoring.token_scores(lm, requests)  # the trial
    packs_of(600, monkeypatch)
    failing(monkeypatch, torch.OutOfMemoryError("no memory left"), lambda number, n: number > 1 and n > most)
    kept: dict[int, Any] = {}
    log_likelihood.score(lm, requests, lambda index, scores: kept.update({index: scores}))
    assert "Out of memory" in caplog.text
    assert sorted(kept) == list(range(len(requests)))  # each of them once
    assert per_token(stock, [kept[i] for i in range(len(requests))]) < 1e-4


def test_nan_logits_in_a_pack_name_the_doc(byte_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = SHARING["Llama, grouped queries"]()
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    found = scoring.token_scores(load(model, byte_tokenizer), few_shot_requests())
    assert all(np.isnan(scores[0]) for scores in found)
    assert len(re.findall(r"a_task doc \d+ choice \d: the model's logits hold NaN", caplog.text)) == 1


@pytest.mark.slow
def test_the_automatic_batch_size_works_with_packs(byte_tokenizer: Any) -> None:
    lm = load(mistral(), byte_tokenizer, batch_size="auto", max_batch_size=8, max_length=256)
    lm.batch_schedule = 1
    requests = few_shot_requests()
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    assert per_token(stock, scoring.token_scores(lm, requests)) < 1e-4


def test_the_progress_bar_counts_every_request_once(byte_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    requests = few_shot_requests()
    scoring.token_scores(load(mistral(), byte_tokenizer), requests)
    assert f"{len(requests)}/{len(requests)}" in capsys.readouterr().err
