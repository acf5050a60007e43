"""Servers of OpenAI's protocol, completions and chat: what they write, and the log-probability of each token of it.

The harness's own ``generate_until`` sends and reads, so the text is the stock run's; the request wants
log-probabilities beside. The protocol does not say whether those are the model's own, at temperature 1, or what the
temperature and the penalties of a request leave: vLLM's are the model's own unless it was started otherwise. At
temperature 0 a server of the other kind gives every token probability 1; a probe finds that out, and then answers have
no confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.models.api_models import LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from lm_eval_calibration.backends import alternatives, fallback
from lm_eval_calibration.backends.answer_types import GeneratedText
from lm_eval_calibration.backends.api.capability import CHAT_TOP_OPTIONS, PROBE, choices_of, probe
from lm_eval_calibration.backends.api.written import content_of, text_alone, written_text
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import checked_model_call, generate_until, warn_of_unmatched
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.tokens import Decode
from lm_eval_calibration.backends.top_k import K
from lm_eval_calibration.errors import UserError

GIVEN = "as the server gives them: the model's own at temperature 1, unless it scales them"

OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": 1},)
CHAT_OPTIONS: tuple[Mapping[str, Any], ...] = ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1})
TOP_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"logprobs": K, "return_tokens_as_token_ids": True},
    *({"logprobs": k} for k in (K, 5)),
)
"""What a server may accept, best first. Ids (vLLM's way) distinguish tokens that read alike."""

MIN_TOP = 5
"""With fewer of the most probable tokens they are not worth reading."""


class _Granted(NamedTuple):
    """What a server gives beside a text, and what to send for it."""

    options: Mapping[str, Any]
    gives_log_probs: bool = True
    k: int = 0  # of the most probable tokens at each position
    decode: Decode | None = None  # reads tokens that the server writes as ids

    def read(self, choice: Mapping[str, Any], text: str) -> GeneratedText:
        """Return a text with what is given."""
        return written_text(choice, text, self.k, self.decode) if self.gives_log_probs else text_alone(choice, text)


@register(
    "lm_eval.models.openai_completions.LocalCompletionsAPI",
    "lm_eval.models.openai_completions.LocalChatCompletion",
    request_type=GENERATION_REQUEST_TYPE,
    stock_methods=("generate_until", "model_call", "amodel_call", "parse_generations"),
)
def generate(lm: LocalCompletionsAPI, requests: Sequence[Any], deliver: Deliver) -> None:
    """Continue every request's context.

    Raises:
        UserError: a request wants numbers along a chain of thought, and the server gives no most probable tokens.
    """
    if not requests:
        return
    granted = _granted(lm, requests)
    given = GIVEN if granted.gives_log_probs else "none"
    about = {s: certificate(lm, token_probabilities=given, sampled=s) for s in (False, True)}
    seen = _Seen()

    def deliver_text(number: int, text: GeneratedText) -> None:
        request = requests[number]
        seen.add(text)
        kept = text.keeping_top_tokens(alternatives.wanted_position(request, text))
        deliver(number, kept.with_certificate(about[_is_sampled(request)]))

    unknown = list(range(len(requests)))
    if not granted.gives_log_probs:  # then a stock run's texts, which the cache may hold, say as much
        known = fallback.known_texts(lm, requests)
        unknown = [i for i in unknown if known[i] is None]
        for i in set(range(len(requests))) - set(unknown):
            deliver_text(i, text_alone({"text": known[i]}, known[i]))
    _write(lm, [requests[i] for i in unknown], lambda number, text: deliver_text(unknown[number], text), granted)
    seen.report(lm, list(about.values()), gives_log_probs=granted.gives_log_probs)


def _is_sampled(request: Any) -> bool:
    return bool(request.args[1].get("temperature"))  # all that the harness looks at


def _write(lm: LocalCompletionsAPI, requests: Sequence[Any], deliver: Deliver, granted: _Granted) -> None:
    """Let the harness send these requests, and deliver the texts with what is granted."""
    delivered = set()
    stock_parse = lm.parse_generations

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        return {**type(lm)._create_payload(lm, messages, generate=generate, **options), **granted.options}

    def parse(outputs: Any, **context: Any) -> list[GeneratedText]:
        texts = stock_parse(outputs=outputs, **context)
        choices = choices_of(outputs)
        if len(choices) != len(texts):  # the server blocked it, and the harness leaves it empty
            choices = [{}] * len(texts)
        return [
            granted.read(choice, LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER if text is None else text)
            for text, choice in zip(texts, choices, strict=True)
        ]

    def deliver_text(number: int, text: GeneratedText) -> None:
        delivered.add(number)
        deliver(number, text)

    call = checked_model_call(lm, lambda outputs, _: parse(outputs))
    texts = generate_until(
        lm, requests, deliver_text, _create_payload=payload, parse_generations=parse, model_call=call
    )
    for i in set(range(len(texts))) - delivered:
        deliver_text(i, texts[i])


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

    def report(self, lm: Any, certificates: Sequence[dict[str, Any]], *, gives_log_probs: bool) -> None:
        """Say what is missing; take probabilities back that can't be any."""
        if gives_log_probs:
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


def _granted(lm: LocalCompletionsAPI, requests: Sequence[Any]) -> _Granted:
    """Find out by a small request what the server gives; the reason is in the log where that is not all of it."""
    is_chat = isinstance(lm, LocalChatCompletion)
    plain = CHAT_OPTIONS if is_chat else OPTIONS
    if alternatives.want_means(requests) or alternatives.want_top_tokens(requests):
        has_ids = not is_chat and hasattr(lm.tokenizer, "decode")
        found = _accepted(lm, CHAT_TOP_OPTIONS if is_chat else TOP_OPTIONS if has_ids else TOP_OPTIONS[1:])
        if isinstance(found, _Granted):
            return found
        if alternatives.want_means(requests):
            raise UserError(
                f"{lm.base_url} does not give the most probable tokens at each position ({found}), of which `chain` "
                "takes the mean: leave `chain` out"
            )
        logger.warning(
            "%s does not give the most probable tokens at each position (%s): the probabilities of the options in the "
            "place of the answer are left out",
            lm.base_url,
            found,
        )
    found = _accepted(lm, plain)
    if isinstance(found, _Granted):
        return found._replace(k=0)
    logger.warning(
        "%s gives no probabilities of the tokens that it writes (%s): its answers have no confidence, and the metrics "
        "of confidence are left out.",
        lm.base_url,
        found,
    )
    return _Granted({}, gives_log_probs=False)


def _accepted(lm: LocalCompletionsAPI, options: Sequence[Mapping[str, Any]]) -> _Granted | str:
    """Return what a server gives with the first of these options that it accepts; why that is not enough otherwise."""
    is_chat = isinstance(lm, LocalChatCompletion)
    prompt = [{"role": "user", "content": PROBE}] if is_chat else lm.create_message([lm.tok_encode(PROBE)])
    settings = {"max_gen_toks": 16, "temperature": 0.0}
    request = lm._create_payload(prompt, generate=True, gen_kwargs=settings, seed=lm._seed, eos=lm.eos_string)
    probed, decode = probe(lm, request, options), getattr(getattr(lm, "tokenizer", None), "decode", None)
    if probed.is_inconclusive:
        return _Granted(options[0], k=_requested(options[0]), decode=decode)
    if probed.options is None:
        return probed.refusal
    k = _requested(probed.options)
    choice: Mapping[str, Any] = next(iter(choices_of(probed.answer)), {})
    try:
        text = written_text(choice, content_of(choice) or "", k, decode)
    except ValueError as error:
        return str(error)
    if text.token_log_probs is not None and len(text.token_log_probs) >= 4 and text.token_log_probs.min() >= -1e-6:
        return "it gives every token probability 1: they are what the temperature 0 leaves of the model's own"
    given = min([k, *map(len, text.listed)])
    if given < min(k, MIN_TOP):
        return f"it lists {given} tokens at a position, and {k} were requested"
    if given < _requested(options[0]):
        logger.info("%s gives the %d most probable tokens at each position", lm.base_url, given)
    return _Granted(probed.options, k=given, decode=decode)


def _requested(options: Mapping[str, Any]) -> int:
    """Return how many of the most probable tokens options request, which a chat counts apart from the written one."""
    return int(options.get("top_logprobs", 0)) if options["logprobs"] is True else int(options["logprobs"])
