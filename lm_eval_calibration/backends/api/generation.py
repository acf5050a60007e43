"""Servers of OpenAI's protocol, completions and chat: what they write, and the log-probability of each token of it.

The harness's own ``generate_until`` sends and reads, so the text is the stock run's; the request wants
log-probabilities beside. The protocol does not say whether those are the model's own, at temperature 1, or what the
temperature and the penalties of a request leave: vLLM's are the model's own unless it was started otherwise. At
temperature 0 a server of the other kind gives every token probability 1; a probe finds that out, and then answers have
no confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from lm_eval_calibration.backends import fallback
from lm_eval_calibration.backends.answer_types import Floats, GeneratedText
from lm_eval_calibration.backends.api.capability import PROBE, choices_of, probe
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import checked_model_call, generate_until, warn_of_unmatched
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.tokens import span_of_pieces
from lm_eval_calibration.backends.top_k import checked_log_prob

GIVEN = "as the server gives them: the model's own at temperature 1, unless it scales them"

OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": 1},)
CHAT_OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1})
"""What a server may accept, best first."""

_MISSING = -9999.0
"""Stands for a log-probability that a server leaves out."""


@register(
    "lm_eval.models.openai_completions.LocalCompletionsAPI",
    "lm_eval.models.openai_completions.LocalChatCompletion",
    request_type=GENERATION_REQUEST_TYPE,
    stock_methods=("generate_until", "model_call", "amodel_call", "parse_generations"),
)
def generate(lm: LocalCompletionsAPI, requests: Sequence[Any], deliver: Deliver) -> None:
    """Continue every request's context."""
    extra = _accepted_options(lm) if requests else None
    if extra is None:
        fallback.generated_texts(lm, requests, deliver)
        return
    about = certificate(lm, token_probabilities=GIVEN)
    delivered: set[int] = set()
    n_unmatched = 0
    stock_parse = lm.parse_generations

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        return {**type(lm)._create_payload(lm, messages, generate=generate, **options), **extra}

    def parse(outputs: Any, **context: Any) -> list[GeneratedText | None]:
        texts = stock_parse(outputs=outputs, **context)
        choices = choices_of(outputs)
        if len(choices) != len(texts):  # the server blocked it, and the harness leaves it empty
            choices = [{}] * len(texts)
        return [
            None if text is None else GeneratedText(text, token_log_probs=token_log_probs(choice, text))
            for text, choice in zip(texts, choices, strict=True)
        ]

    def deliver_text(number: int, text: Any) -> None:
        nonlocal n_unmatched
        log_probs = text.token_log_probs if isinstance(text, GeneratedText) else np.zeros(0)  # null: no token
        n_unmatched += log_probs is None
        delivered.add(number)
        sampled = bool(requests[number].args[1].get("temperature"))  # all that the harness looks at
        deliver(number, GeneratedText(text, token_log_probs=log_probs, certificate={**about, "sampled": sampled}))

    call = checked_model_call(lm, lambda outputs, _: parse(outputs))
    texts = generate_until(
        lm, requests, deliver_text, _create_payload=payload, parse_generations=parse, model_call=call
    )
    for i in set(range(len(texts))) - delivered:
        deliver_text(i, texts[i])  # the harness stores no null for its cache
    warn_of_unmatched(lm, n_unmatched, len(requests))


def token_log_probs(choice: Mapping[str, Any], text: str) -> Floats | None:
    """Read the log-probabilities of the tokens that a text consists of; None where it consists of others.

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
        checked_log_prob(None if value == _MISSING else value, f"token {i}, {piece!r}")
        for i, (piece, value) in enumerate(zip(pieces, values, strict=True))
    ]
    span = span_of_pieces(pieces, content, text)
    return None if span is None else np.array(log_probs[span], dtype=np.float64)


def _accepted_options(lm: LocalCompletionsAPI) -> Mapping[str, Any] | None:
    """Return what to send beside the harness's request; None, and the reason in the log, where nothing helps."""
    is_chat = isinstance(lm, LocalChatCompletion)
    options = CHAT_OPTIONS if is_chat else OPTIONS
    prompt = [{"role": "user", "content": PROBE}] if is_chat else lm.create_message([lm.tok_encode(PROBE)])
    settings = {"max_gen_toks": 16, "temperature": 0.0}
    request = lm._create_payload(prompt, generate=True, gen_kwargs=settings, seed=lm._seed, eos=lm.eos_string)
    probed = probe(lm, request, options)
    if probed.is_inconclusive:
        return options[0]
    reason = probed.refusal
    if probed.options is not None:
        choice: Mapping[str, Any] = next(iter(choices_of(probed.answer)), {})
        content = choice.get("text") or (choice.get("message") or {}).get("content") or ""
        try:
            log_probs = token_log_probs(choice, content)
        except ValueError as error:
            reason = str(error)
        else:
            if log_probs is None or len(log_probs) < 4 or log_probs.min() < -1e-6:
                return probed.options
            reason = "it gives every token probability 1: they are what the temperature 0 leaves of the model's own"
    logger.warning(
        "%s gives no probabilities of the tokens that it writes (%s): its answers have no confidence, and the metrics "
        "of confidence are left out.",
        lm.base_url,
        reason,
    )
    return None
