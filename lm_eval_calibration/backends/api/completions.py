"""Servers that speak OpenAI's completions protocol: the prompt echoed, with the k most probable tokens at each place.

The harness asks for one log-probability a position; here the same request asks for as many as the server gives, and
what comes back is read in full. Everything else (batches, concurrency, retries, order) stays the harness's.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from lm_eval.models.openai_completions import LocalCompletionsAPI

from lm_eval_calibration.backends.api.capability import first_granted
from lm_eval_calibration.backends.api.echo import EchoCheck, positions
from lm_eval_calibration.backends.stock_calls import read_at_once, score, shadowed
from lm_eval_calibration.backends.token_scores import TokenScores
from lm_eval_calibration.backends.top_k import K, Position, scores_of
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, TokenScores], None]

ASKED: tuple[Mapping[str, Any], ...] = (
    {"logprobs": K, "return_tokens_as_token_ids": True},
    {"logprobs": K},
    {"logprobs": 5},
    {"logprobs": 1},
)
"""What a server may grant, best first. Ids (vLLM's way) tell tokens apart that read alike."""

_OURS_ONLY_IF_STOCK = (
    *("_loglikelihood_tokens", "batch_loglikelihood_requests", "model_call", "amodel_call"),
    "parse_logprobs",
)


def refusal(lm: LocalCompletionsAPI) -> str | None:
    """Say why a backend's answers can't be read here (None: they can)."""
    changed = [
        name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(LocalCompletionsAPI, name)
    ]
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: LocalCompletionsAPI, requests: Sequence[Any], keep: Keep) -> None:
    """Score every request (see :func:`lm_eval_calibration.backends.token_scores`)."""
    score(lm, requests, keep, _asking_for_more)


def _granted(lm: LocalCompletionsAPI) -> Mapping[str, Any]:
    """Return what to ask of the server beside the harness's request."""
    prompt = lm.create_message([lm.tok_encode("One and two")])
    request = lm._create_payload(prompt, generate=False, seed=lm._seed, eos=lm.eos_string)
    grant = first_granted(lm, request, ASKED)
    if grant.is_unknown:
        return ASKED[1]
    if grant.options is None:
        return ASKED[-1]  # the harness's own request; what is wrong with it is the harness's to say
    if grant.refused:
        logger.info("%s grants %s; it refused more: %s", lm.base_url, dict(grant.options), grant.refused)
    return grant.options


@contextmanager
def _asking_for_more(lm: LocalCompletionsAPI) -> Iterator[None]:
    """Let the backend ask for what the server grants and answer with what comes of it, as long as the context lasts."""
    extra, check = _granted(lm), EchoCheck()
    k = int(extra["logprobs"])
    certificate: dict[str, Any] = {
        "backend": type(lm).__name__,
        "distributions": "top_k",
        "k": k,
        **tokenizer_fields(lm),
        "versions": versions("lm-eval"),
    }

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        asked: dict[str, Any] = type(lm)._create_payload(lm, messages, generate=generate, **options)
        return asked if generate else {**asked, **extra}

    def parse(outputs: Any, tokens: Any = None, ctxlens: Sequence[int] | None = None, **_: Any) -> list[TokenScores]:
        answers: list[TokenScores] = []
        for echoed, context_length in zip(_echoed(lm, outputs, tokens), ctxlens or (), strict=True):
            check.look_at(echoed, k)
            ids = bool(extra.get("return_tokens_as_token_ids"))
            continuation = echoed[context_length:]
            answers.append(scores_of(continuation, k, are_ids=ids, vocab_size=_vocab_size(lm), certificate=certificate))
        return answers

    call = read_at_once(lm, lambda outputs, prompts: _echoed(lm, outputs, prompts))
    with shadowed(lm, _create_payload=payload, parse_logprobs=parse, model_call=call):
        yield
    if check.is_shifted:
        logger.warning("%s at %s: %s", type(lm).__name__, lm.base_url, check.message)
        certificate["suspect"] = check.message  # of every answer: it is one mapping


def _echoed(lm: LocalCompletionsAPI, outputs: Any, prompts: Sequence[Any]) -> list[list[Position]]:
    """Read the answers to these prompts."""
    choices = [
        choice
        for output in (outputs if isinstance(outputs, list) else [outputs])
        for choice in sorted(output["choices"], key=itemgetter("index"))
    ]
    return [
        positions(choice, prompt, (f"token_id:{prompt[-1]}", lm.tokenizer.decode(prompt[-1:])))
        if isinstance(prompt, list)
        else positions(choice, None)
        for choice, prompt in zip(choices, prompts, strict=True)
    ]


def _vocab_size(lm: LocalCompletionsAPI) -> int | None:
    try:
        return len(lm.tokenizer)
    except TypeError:  # tiktoken's
        return getattr(lm.tokenizer, "n_vocab", None)
