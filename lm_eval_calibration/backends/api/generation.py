"""Servers of OpenAI's protocol, completions and chat: what they write, and the log-probability of each token of it.

The harness's own ``generate_until`` sends and reads, so the text is the stock run's; the request wants
log-probabilities beside. The protocol does not say whether those are the model's own, at temperature 1, or what the
temperature and the penalties of a request leave: vLLM's are the model's own unless it was started otherwise. At
temperature 0 a server of the other kind gives every token probability 1; a probe finds that out, and then answers have
no confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.models.api_models import LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from lm_eval_calibration.backends import fallback
from lm_eval_calibration.backends.answer_types import GeneratedText
from lm_eval_calibration.backends.api.capability import PROBE, choices_of, probe
from lm_eval_calibration.backends.api.written import content_of, written_text
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import checked_model_call, generate_until, warn_of_unmatched
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, Deliver, register

GIVEN = "as the server gives them: the model's own at temperature 1, unless it scales them"

OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": 1},)
CHAT_OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1})
"""What a server may accept, best first."""


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
    about = {sampled: certificate(lm, token_probabilities=GIVEN, sampled=sampled) for sampled in (False, True)}
    seen, delivered = _Seen(), set()
    stock_parse = lm.parse_generations

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        return {**type(lm)._create_payload(lm, messages, generate=generate, **options), **extra}

    def parse(outputs: Any, **context: Any) -> list[GeneratedText]:
        texts = stock_parse(outputs=outputs, **context)
        choices = choices_of(outputs)
        if len(choices) != len(texts):  # the server blocked it, and the harness leaves it empty
            choices = [{}] * len(texts)
        return [
            written_text(choice, LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER if text is None else text)
            for text, choice in zip(texts, choices, strict=True)
        ]

    def deliver_text(number: int, text: GeneratedText) -> None:
        sampled = bool(requests[number].args[1].get("temperature"))  # all that the harness looks at
        seen.add(text)
        delivered.add(number)
        deliver(number, text.with_certificate(about[sampled]))

    call = checked_model_call(lm, lambda outputs, _: parse(outputs))
    texts = generate_until(
        lm, requests, deliver_text, _create_payload=payload, parse_generations=parse, model_call=call
    )
    for i in set(range(len(texts))) - delivered:
        deliver_text(i, texts[i])
    seen.report(lm, list(about.values()))


class _Seen:
    """What the answers of a run have in common, and what some of them lack."""

    MIN_TOKENS = 20
    """Tokens of which not all can have probability 1."""

    def __init__(self) -> None:
        self.n_texts = self.n_tokens = self.n_unmatched = self.n_missing = self.n_thoughts = 0
        self.lowest = 0.0

    def add(self, text: GeneratedText) -> None:
        """Count an answer."""
        log_probs = text.token_log_probs
        self.n_texts += 1
        self.n_unmatched += log_probs is None
        self.n_missing += not text.has_content
        self.n_thoughts += text.thought_is_open
        if log_probs is not None and len(log_probs):
            self.n_tokens += len(log_probs)
            self.lowest = min(self.lowest, float(log_probs.min()))

    def report(self, lm: Any, certificates: Sequence[dict[str, Any]]) -> None:
        """Say what is missing; take probabilities back that can't be any."""
        warn_of_unmatched(lm, self.n_unmatched, self.n_texts)
        of = (self.n_texts, lm.base_url)
        if self.n_missing:
            logger.warning("%d of %d replies of %s have no content: they are empty answers.", self.n_missing, *of)
        if self.n_thoughts:
            message = (
                "In %d of %d replies of %s a thought was cut off before any answer: allow more tokens (max_gen_toks)."
            )
            logger.warning(message, self.n_thoughts, *of)
        if self.n_tokens >= self.MIN_TOKENS and self.lowest > -1e-6:
            reason = f"the server gives all of {self.n_tokens} tokens that it wrote probability 1"
            logger.warning("%s at %s: %s: they are left out.", type(lm).__name__, lm.base_url, reason)
            for of_texts in certificates:  # in every answer's: it is one mapping
                of_texts |= {"token_probabilities": "none", "suspect": reason}


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
        try:
            log_probs = written_text(choice, content_of(choice) or "").token_log_probs
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
