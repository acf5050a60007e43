"""vLLM and SGLang: what they write, and the log-probability of each token of it.

The harness's own ``generate_until`` runs, so the text is the stock run's; the engine is asked for the log-probability
of each token that it chooses. vLLM's are the model's own, at temperature 1 and before any penalty, unless it was
started with another ``logprobs_mode``. SGLang's are after the temperature of a request that samples: none then.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.backends.engines.log_likelihood import certificate_of, is_vllm
from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.spans import span_of_ids
from lm_eval_calibration.backends.stock_calls import generate
from lm_eval_calibration.backends.top_k import checked_log_prob

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

RAW = "raw_logprobs"
"""vLLM's mode, its default, in which they are the model's own."""

_OURS_ONLY_IF_STOCK = ("generate_until", "_model_generate")


def refusal(lm: Any) -> str | None:
    """Say why a backend's answers can't be read here (None: they can)."""
    base = next(cls for cls in type(lm).__mro__ if cls.__name__ in ("VLLM", "SGLangLM"))
    changed = [name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(base, name)]
    if changed:
        return f"it has a {changed[0]} of its own"
    mode = (getattr(lm, "model_args", None) or {}).get("logprobs_mode", RAW)
    return None if mode == RAW else f"logprobs_mode is {mode}, which are not the model's own probabilities"


def answer(lm: Any, requests: Sequence[Any], keep: Callable[[int, GeneratedText], None]) -> None:
    """Answer every request (see :func:`lm_eval_calibration.backends.generated_tokens`)."""
    rows: deque[_Row] = deque()
    read = vllm_tokens if is_vllm(lm) else sglang_tokens
    certificate = certificate_of(lm) | {"token_probabilities": "exact: the model's own at temperature 1"}
    unseen = 0

    def model_generate(**options: Any) -> Any:
        if is_vllm(lm):
            for params in options["sampling_params"]:
                params.logprobs = 0  # of the chosen token, and of no other
        else:
            options["return_logprob"] = True
        outputs = type(lm)._model_generate(lm, **options)
        for params, output in zip(options["sampling_params"], outputs, strict=True):
            settings = params.get if isinstance(params, dict) else partial(getattr, params)
            rows.append(_Row(*read(output), settings("temperature", 1.0) > 0, settings("skip_special_tokens", True)))
        return outputs

    def take(number: int, text: str) -> None:
        nonlocal unseen
        row = rows.popleft()  # the harness stores texts in the order of the batch
        decode = partial(lm.tokenizer.decode, skip_special_tokens=row.skips_special)
        special = lm.tokenizer.all_special_ids if row.skips_special else ()
        found = span_of_ids(row.tokens, text, decode, special, lm.think_end_token)
        unseen += found is None
        known = None if found is None else row.log_probs[found]
        about = certificate | {"sampled": row.sampled}
        if row.sampled and not is_vllm(lm):
            known, about["token_probabilities"] = None, "none"
        keep(number, GeneratedText(text, token_log_probs=known, certificate=about))

    generate(lm, requests, take, _model_generate=model_generate)
    if unseen:
        logger.warning(
            "%s: %d of %d answers have no token probabilities (their texts are not made of the tokens in their order).",
            type(lm).__name__,
            unseen,
            len(requests),
        )


class _Row(NamedTuple):
    """One answer: its tokens, their log-probabilities, and how they were chosen and spelt."""

    tokens: list[int]
    log_probs: NDArray[np.float64]
    sampled: bool
    skips_special: bool


def vllm_tokens(output: Any) -> tuple[list[int], NDArray[np.float64]]:
    """Read what vLLM wrote: the tokens' ids and log-probabilities.

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
    return tokens, np.array(log_probs, dtype=np.float64)


def sglang_tokens(output: Any) -> tuple[list[int], NDArray[np.float64]]:
    """Read what SGLang wrote: lists of (log-probability, token id, text).

    Raises:
        ValueError: there are none, or something that is no log-probability.
    """
    given = output["meta_info"].get("output_token_logprobs")
    if given is None:
        raise ValueError("SGLang gave no log-probabilities of the tokens that it wrote")
    log_probs = [checked_log_prob(entry[0], f"token {i}, id {entry[1]}") for i, entry in enumerate(given)]
    return [entry[1] for entry in given], np.array(log_probs, dtype=np.float64)
