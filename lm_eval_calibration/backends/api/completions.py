"""Servers of OpenAI's completions protocol: the echoed prompt, with the k most probable tokens at each position.

The harness requests one log-probability a position; here the same request wants as many as the server gives, and
what comes back is read in full. Everything else (batches, concurrency, retries, order) stays the harness's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.openai_completions import LocalCompletionsAPI

from lm_eval_calibration.backends.answer_types import TokenScores
from lm_eval_calibration.backends.api.capability import PROBE, choices_of, probe
from lm_eval_calibration.backends.api.echo import EchoCheck, positions
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import checked_model_call, loglikelihood, replaced
from lm_eval_calibration.backends.registry import SCORING_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.top_k import K, Position, scores_of

OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"logprobs": K, "return_tokens_as_token_ids": True},
    *({"logprobs": k} for k in (K, 5, 1)),
)
"""What a server may accept, best first. Ids (vLLM's way) distinguish tokens that read alike."""


@register(
    "lm_eval.models.openai_completions.LocalCompletionsAPI",
    request_type=SCORING_REQUEST_TYPE,
    stock_methods=(
        *("_loglikelihood_tokens", "batch_loglikelihood_requests", "model_call", "amodel_call"),
        "parse_logprobs",
    ),
)
def score(lm: LocalCompletionsAPI, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every request's continuation."""
    loglikelihood(lm, requests, deliver, _giving_scores)


def _accepted_options(lm: LocalCompletionsAPI) -> Mapping[str, Any]:
    """Return what to send beside the harness's request."""
    prompt = lm.create_message([lm.tok_encode(PROBE)])
    request = lm._create_payload(prompt, generate=False, seed=lm._seed, eos=lm.eos_string)
    probed = probe(lm, request, OPTIONS)
    if probed.is_inconclusive:
        return OPTIONS[1]
    if probed.options is None:
        return OPTIONS[-1]  # the harness's own request; the harness will say what is wrong with it
    if probed.refusal:
        logger.info("%s accepts %s; it refused more: %s", lm.base_url, dict(probed.options), probed.refusal)
    return probed.options


@contextmanager
def _giving_scores(lm: LocalCompletionsAPI) -> Iterator[None]:
    """Let the backend request what the server accepts and answer with the scores, within the context."""
    extra, check, vocab_size = _accepted_options(lm), EchoCheck(), _vocab_size(lm)
    k, ids = int(extra["logprobs"]), bool(extra.get("return_tokens_as_token_ids"))
    about = certificate(lm, distributions="top_k", k=k)

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        stock: dict[str, Any] = type(lm)._create_payload(lm, messages, generate=generate, **options)
        return stock if generate else {**stock, **extra}

    def parse(outputs: Any, tokens: Any = None, ctxlens: Sequence[int] | None = None, **_: Any) -> list[TokenScores]:
        answers: list[TokenScores] = []
        for echoed, context_length in zip(_echoed(lm, outputs, tokens), ctxlens or (), strict=True):
            check.add(echoed, k)
            continuation = echoed[context_length:]
            answers.append(scores_of(continuation, k, are_ids=ids, vocab_size=vocab_size, certificate=about))
        return answers

    call = checked_model_call(lm, lambda outputs, prompts: _echoed(lm, outputs, prompts))
    with replaced(lm, _create_payload=payload, parse_logprobs=parse, model_call=call):
        yield
    if check.is_shifted:
        logger.warning("%s at %s: %s", type(lm).__name__, lm.base_url, check.message)
        about["suspect"] = check.message  # in every answer's certificate: it is one mapping


def _echoed(lm: LocalCompletionsAPI, outputs: Any, prompts: Sequence[Any]) -> list[list[Position]]:
    """Read the answers to these prompts."""
    return [
        positions(choice, prompt, (f"token_id:{prompt[-1]}", lm.tokenizer.decode(prompt[-1:])))
        if isinstance(prompt, list)
        else positions(choice, None)
        for choice, prompt in zip(choices_of(outputs), prompts, strict=True)
    ]


def _vocab_size(lm: LocalCompletionsAPI) -> int | None:
    try:
        return len(lm.tokenizer)
    except TypeError:  # tiktoken's
        return getattr(lm.tokenizer, "n_vocab", None)
