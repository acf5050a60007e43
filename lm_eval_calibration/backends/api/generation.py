"""Servers of OpenAI's protocol, completions and chat: what they write, and the log-probability of each token of it.

The harness's own ``generate_until`` asks and reads, so the text is the stock run's; the request asks for
log-probabilities beside. The protocol does not say whether those are the model's own, at temperature 1, or what is left
after the temperature and the penalties of a request: vLLM's are the model's own unless it was started otherwise. At
temperature 0 a server of the other kind gives every token probability 1; that is found out and gives no confidence.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from numpy.typing import NDArray

from lm_eval_calibration.backends.api.capability import first_granted
from lm_eval_calibration.backends.fallback import generation as plain_generation
from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.spans import span_of_pieces
from lm_eval_calibration.backends.stock_calls import generate, read_at_once
from lm_eval_calibration.backends.top_k import checked_log_prob
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, GeneratedText], None]

GIVEN = "as the server gives them: the model's own at temperature 1, unless it scales them"

ASKED: tuple[Mapping[str, Any], ...] = ({"logprobs": 1},)
ASKED_CHAT: tuple[Mapping[str, Any], ...] = ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1})
"""What a server may grant."""

_UNTOLD = -9999.0
"""Stands for a log-probability that was not told."""

_OURS_ONLY_IF_STOCK = ("generate_until", "model_call", "amodel_call")


def refusal(lm: LocalCompletionsAPI) -> str | None:
    """Say why a backend's answers can't be read here (None: they can)."""
    changed = [
        name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(LocalCompletionsAPI, name)
    ]
    stock = LocalChatCompletion if isinstance(lm, LocalChatCompletion) else LocalCompletionsAPI
    if type(lm).parse_generations is not stock.parse_generations:
        changed.append("parse_generations")
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: LocalCompletionsAPI, requests: Sequence[Any], keep: Keep) -> None:
    """Answer every request (see :func:`lm_eval_calibration.backends.generated_tokens`)."""
    if not requests:
        return
    asked = _granted(lm)
    if asked is None:
        plain_generation.answer(lm, requests, keep)
        return
    certificate = {
        "backend": type(lm).__name__,
        "token_probabilities": GIVEN,
        **tokenizer_fields(lm),
        "versions": versions("lm-eval"),
    }
    kept: set[int] = set()
    unseen: set[int] = set()
    stock_parse = lm.parse_generations

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        return {**type(lm)._create_payload(lm, messages, generate=generate, **options), **asked}

    def parse(outputs: Any, **context: Any) -> list[GeneratedText | None]:
        texts = stock_parse(outputs=outputs, **context)
        choices = [c for output in (outputs if isinstance(outputs, list) else [outputs]) for c in _in_order(output)]
        if len(choices) != len(texts):  # the server blocked it, and the harness leaves it empty
            choices = [{}] * len(texts)
        return [
            None if text is None else GeneratedText(text, token_log_probs=token_log_probs(choice, text))
            for text, choice in zip(texts, choices, strict=True)
        ]

    def take(number: int, text: Any) -> None:
        log_probs = text.token_log_probs if isinstance(text, GeneratedText) else np.zeros(0)  # null: no token
        if log_probs is None:
            unseen.add(number)
        kept.add(number)
        sampled = bool(requests[number].args[1].get("temperature"))  # all that the harness looks at
        keep(number, GeneratedText(text, token_log_probs=log_probs, certificate={**certificate, "sampled": sampled}))

    call = read_at_once(lm, lambda outputs, _: parse(outputs))
    answers = generate(lm, requests, take, _create_payload=payload, parse_generations=parse, model_call=call)
    for i, text in enumerate(answers):
        if i not in kept:  # the harness stores no null for its cache
            take(i, text)
    if unseen:
        logger.warning(
            "%s: %d of %d answers have no token probabilities (their texts are not made of the tokens in their order).",
            type(lm).__name__,
            len(unseen),
            len(requests),
        )


def token_log_probs(choice: Mapping[str, Any], text: str) -> NDArray[np.float64] | None:
    """Read the log-probabilities of the tokens that a text consists of (None: it is not made of them).

    Args:
        choice: of a completions or chat response.
        text: what the harness made of it.

    Raises:
        ValueError: they are missing, too few, not numbers or above 0: missing ones are never p = 1.
    """
    found = choice.get("logprobs") or {}
    if "content" in found:
        pieces = [entry["token"] for entry in found["content"] or ()]
        values = [entry.get("logprob") for entry in found["content"] or ()]
        content = choice["message"]["content"]
    else:
        pieces, values = found.get("tokens") or [], found.get("token_logprobs") or []
        content = choice.get("text", "")
    if len(pieces) != len(values):
        raise ValueError(f"the server's answer has {len(pieces)} tokens and {len(values)} log-probabilities")
    if text and not pieces:
        raise ValueError("the server's answer has no log-probabilities of its tokens")
    log_probs = [
        checked_log_prob(None if value == _UNTOLD else value, f"token {i}, {piece!r}")
        for i, (piece, value) in enumerate(zip(pieces, values, strict=True))
    ]
    span = span_of_pieces(pieces, content, text)
    return None if span is None else np.array(log_probs[span], dtype=np.float64)


def _granted(lm: LocalCompletionsAPI) -> Mapping[str, Any] | None:
    """Return what to ask for beside the harness's request; None, and the reason in the log, where nothing helps."""
    is_chat = isinstance(lm, LocalChatCompletion)
    asked: Sequence[Mapping[str, Any]] = ASKED_CHAT if is_chat else ASKED
    prompt = (
        [{"role": "user", "content": "One and two"}] if is_chat else lm.create_message([lm.tok_encode("One and two")])
    )
    settings = {"max_gen_toks": 16, "temperature": 0.0}
    request = lm._create_payload(prompt, generate=True, gen_kwargs=settings, seed=lm._seed, eos=lm.eos_string)
    grant = first_granted(lm, request, asked)
    if grant.is_unknown:
        return asked[0]
    reason = grant.refused
    if grant.options is not None:
        choice = next(iter(_in_order(grant.answer)), {})
        content = choice.get("text") or (choice.get("message") or {}).get("content") or ""
        try:
            log_probs = token_log_probs(choice, content)
        except ValueError as error:
            reason = str(error)
        else:
            if log_probs is None or len(log_probs) < 4 or log_probs.min() < -1e-6:
                return grant.options
            reason = "it gives every token probability 1: they are what the temperature 0 leaves of the model's own"
    logger.warning(
        "%s gives no probabilities of the tokens that it writes (%s): its answers have no confidence, and the metrics "
        "of confidence are left out.",
        lm.base_url,
        reason,
    )
    return None


def _in_order(output: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(output.get("choices") or (), key=lambda choice: int(choice.get("index", 0)))
