"""vLLM in the harness's own process.

It gives 20 tokens a position, or up to 100 where it was started with a larger ``max_logprobs``. Log-probabilities are
the model's own, at temperature 1 and before any penalty, unless it was started with another ``logprobs_mode``.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from lm_eval_calibration.backends import alternatives
from lm_eval_calibration.backends.answer_types import MAX_BINS, TOP_K
from lm_eval_calibration.backends.engines import calls
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, SCORING_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.top_k import K, Position, checked_log_prob
from lm_eval_calibration.errors import UserError

VLLM = "lm_eval.models.vllm_causallms.VLLM"

RAW = "raw_logprobs"
"""The mode, its default, in which log-probabilities are the model's own."""


@register(VLLM, request_type=SCORING_REQUEST_TYPE, stock_methods=calls.SCORING_METHODS)
def score(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every request's continuation."""
    k, longest = _granted_k(lm, MAX_BINS), lm.max_length - 1  # tokens of a prompt that the harness keeps
    of_several: set[int] = set()  # hashes of prompts that end in a continuation of several tokens

    def loglikelihood_tokens(requests: Any, **options: Any) -> Any:
        of_several.update(hash(tuple((a + b)[-longest:])) for _, a, b in requests if len(b) > 1)
        return type(lm)._loglikelihood_tokens(lm, requests, **options)

    def model_generate(requests: Any, **_: Any) -> Any:
        is_raw = _model_args(lm).get("logprobs_mode", RAW) == RAW
        as_next = [is_raw and len(tokens) > 1 and hash(tuple(tokens)) not in of_several for tokens in requests]
        prompts = [tokens[:-1] if is_next else tokens for tokens, is_next in zip(requests, as_next, strict=True)]
        params = [
            _params(k, tokens[-1] if is_next else None) for tokens, is_next in zip(requests, as_next, strict=True)
        ]
        # `generate` lets the method take these parameters instead of its own.
        return type(lm)._model_generate(lm, requests=prompts, generate=True, sampling_params=params)

    engine = getattr(getattr(lm, "model", None), "llm_engine", None)  # it counts padding rows, too
    size = len(lm.tokenizer) if engine is None else int(engine.model_config.get_vocab_size())
    how: dict[str, Any] = {"package": "vllm", "k": k, "vocab_size": size}
    replaced = {"_model_generate": model_generate, "_loglikelihood_tokens": loglikelihood_tokens}
    calls.score(lm, requests, deliver, **how, methods=replaced, positions=positions)


def _params(k: int, token: int | None) -> Any:
    """Return what to ask of a prompt: its tokens' log-probabilities, or those of what comes next.

    A continuation of one token is asked for as the token that the engine writes, and may write no other: its logits are
    computed alone, and the prompt is taken from the engine's cache, where log-probabilities of a prompt's tokens need
    all of it read, and logits over the vocabulary for each. Raw log-probabilities are from before any restriction.
    """
    from vllm import SamplingParams

    if token is None:
        return SamplingParams(temperature=0, prompt_logprobs=k, max_tokens=1, detokenize=False)
    return SamplingParams(temperature=0, logprobs=k, allowed_token_ids=[token], max_tokens=1, detokenize=False)


def positions(tokens: Sequence[int], output: Any, start: int) -> list[Position]:
    """Read the tokens from ``start`` on: a mapping from token id to log-probability each.

    Raises:
        ValueError: it lacks the prompt's own token, or holds something that is no log-probability.
    """
    given = output.prompt_logprobs
    if given is None and start == len(tokens) - 1:  # the last token is the one that was written
        written = output.outputs[0].logprobs or ()
        given = [*[None] * start, *written]
    if given is None or len(given) != len(tokens):
        raise ValueError(f"vLLM gave {len(given or ())} positions of a prompt of {len(tokens)} tokens")
    found = []
    for i in range(start, len(tokens)):
        if not given[i] or tokens[i] not in given[i]:
            raise ValueError(f"vLLM gave no log-probability of the prompt's token {i} (id {tokens[i]})")
        top = {
            token: checked_log_prob(getattr(value, "logprob", value), f"token {i}, id {token}")
            for token, value in given[i].items()
        }
        if len(top) > 1 and sum(value > -math.inf for value in top.values()) == 1:
            raise ValueError(f"vLLM gave log-probabilities of token {i} as if no other were allowed")
        found.append(Position(tokens[i], top[tokens[i]], top))
    return found


def _reason_unsupported(lm: Any) -> str | None:
    mode = _model_args(lm).get("logprobs_mode", RAW)
    return None if mode == RAW else f"logprobs_mode is {mode}, which are not the model's own probabilities"


@register(
    VLLM,
    request_type=GENERATION_REQUEST_TYPE,
    stock_methods=calls.GENERATION_METHODS,
    reason_unsupported=_reason_unsupported,
)
def generate(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Continue every request's context; raise UserError where the most probable tokens are wanted and not granted."""
    k = _granted_k(lm, TOP_K) if alternatives.want_means(requests) else 0
    if alternatives.want_means(requests) and not k:
        raise UserError("vLLM was started with max_logprobs=0, and `chain` takes the mean of the most probable tokens")

    def options_for(all_params: Sequence[Any]) -> dict[str, Any]:
        for params in all_params:
            params.logprobs = k  # beside the chosen token
        return {}

    read = partial(written_tokens, k=k)
    calls.generate(lm, requests, deliver, package="vllm", options_for=options_for, read=read, gives_sampled=True)


def _granted_k(lm: Any, wanted: int) -> int:
    """Return how many tokens a position it gives, at most those wanted."""
    granted = int(_model_args(lm).get("max_logprobs", K))
    return wanted if granted < 0 else min(granted, wanted)  # -1: as many as there are


def written_tokens(output: Any, k: int = 0) -> calls.Written:
    """Read the tokens that were written, and the ``k`` most probable ones at each position.

    Raises:
        ValueError: a token has none, or something that is no log-probability.
    """
    written = output.outputs[0]
    tokens, given = list(written.token_ids), written.logprobs or ()
    if len(given) != len(tokens):
        raise ValueError(f"vLLM gave {len(given)} log-probabilities of {len(tokens)} tokens that it wrote")
    log_probs = [
        checked_log_prob(getattr(at.get(token), "logprob", None), f"token {i}, id {token}")
        for i, (token, at) in enumerate(zip(tokens, given, strict=True))
    ]
    if not k:
        return calls.Written(tokens, np.array(log_probs, dtype=np.float64))
    listed = [tuple((str(token), float(value.logprob)) for token, value in at.items()) for at in given]
    return calls.Written(tokens, np.array(log_probs, dtype=np.float64), alternatives.means_of_listed(listed, k), k)


def _model_args(lm: Any) -> dict[str, Any]:
    return getattr(lm, "model_args", None) or {}
