"""Servers that speak OpenAI's completions protocol: the prompt echoed, with the k most probable tokens at each place.

The harness asks for one log-probability a position; here the same request asks for as many as the server gives, and
what comes back is read in full. Everything else (batches, concurrency, retries, order) stays the harness's.

A distribution's k most probable entries are all that Full-ECE needs as soon as none of the others can reach 1/n_bins:
each answer says from which probability on its entries are complete.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np
import requests as http
from lm_eval.api.model import hash_args
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from lm_eval_calibration.scoring.echo import EchoCheck, Position, positions
from lm_eval_calibration.scoring.token_scores import MIN_LARGE_PROB, TokenScores
from lm_eval_calibration.scoring.versions import versions

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, TokenScores], None]

ASKED: tuple[Mapping[str, Any], ...] = (
    {"logprobs": 20, "return_tokens_as_token_ids": True},
    {"logprobs": 20},
    {"logprobs": 5},
    {"logprobs": 1},
)
"""What a server may grant, best first. 20 entries hold every probability of at least 0.05; ids (vLLM) tell tokens apart
that read alike."""

_OURS_ONLY_IF_STOCK = ("_loglikelihood_tokens", "batch_loglikelihood_requests", "model_call", "amodel_call")


def refusal(lm: LocalCompletionsAPI) -> str | None:
    """Say why a backend's answers can't be read here (None: they can)."""
    if isinstance(lm, LocalChatCompletion):
        return "chat endpoints give no log-probabilities of a prompt"
    changed = [
        name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(LocalCompletionsAPI, name)
    ]
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: LocalCompletionsAPI, requests: Sequence[Any], keep: Keep) -> None:
    """Score every request (see :func:`lm_eval_calibration.scoring.token_scores`)."""
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    todo = []
    for i, request in enumerate(requests):  # the harness keeps each answer as it comes: a run that died has paid for it
        known = None if cache is None else cache.get(hash_args("loglikelihood", request.args))
        if isinstance(known, TokenScores):
            keep(i, known)
        else:
            todo.append(i)
    if not todo:
        return
    check = EchoCheck()
    with _asking_for(lm, _granted(lm), check):
        answers = lm.loglikelihood([requests[i] for i in todo])
    for i, answer in zip(todo, answers, strict=True):
        keep(i, answer)
    if check.is_shifted:
        logger.warning("%s at %s: %s", type(lm).__name__, lm.base_url, check.message)


def _granted(lm: LocalCompletionsAPI) -> Mapping[str, Any]:
    """Ask for less until the server agrees."""
    prompt = lm.create_message([lm.tok_encode("One and two")])
    refused = ""
    for extra in ASKED:
        payload = lm._create_payload(prompt, generate=False, seed=lm._seed, eos=lm.eos_string) | extra
        response = http.post(
            lm.base_url, json=payload, headers=lm.header, verify=lm.verify_certificate, timeout=lm.timeout
        )
        if response.ok:
            if extra is not ASKED[0]:
                logger.info("%s grants %s; it refused more: %s", lm.base_url, dict(extra), refused)
            return extra
        refused = f"{response.status_code} {response.text[:200]}"
        if response.status_code >= 500:  # no answer to the question; the harness's own retries are for that
            return ASKED[1]
    return ASKED[-1]  # the harness's own request; what is wrong with it is the harness's to say


@contextmanager
def _asking_for(lm: LocalCompletionsAPI, extra: Mapping[str, Any], check: EchoCheck) -> Iterator[None]:
    """Let the backend ask for ``extra`` and answer with what comes of it, as long as the context lasts."""
    k = int(extra["logprobs"])
    certificate = {
        "backend": type(lm).__name__,
        "distributions": "top_k",
        "k": k,
        "tokenizer": str(lm.tokenizer_name),
        "versions": versions("lm-eval"),
    }

    def payload(messages: Any, generate: bool = False, **options: Any) -> dict[str, Any]:
        asked: dict[str, Any] = type(lm)._create_payload(lm, messages, generate=generate, **options)
        return asked if generate else {**asked, **extra}

    def parse(outputs: Any, tokens: Any = None, ctxlens: Sequence[int] | None = None, **_: Any) -> list[TokenScores]:
        answers: list[TokenScores] = []
        choices = [
            choice
            for output in (outputs if isinstance(outputs, list) else [outputs])
            for choice in sorted(output["choices"], key=itemgetter("index"))
        ]
        for choice, context_length, prompt in zip(choices, ctxlens or (), tokens or (), strict=True):
            echoed = positions(choice, prompt if isinstance(prompt, list) else None)
            check.look_at(echoed, k)
            ids = bool(extra.get("return_tokens_as_token_ids"))
            answers.append(_scores(echoed[context_length:], k, ids, _vocab_size(lm), certificate))
        return answers

    # Instance attributes shadow the class's methods, as for hf.
    lm._create_payload, lm.parse_logprobs = payload, parse
    try:
        yield
    finally:
        del lm._create_payload, lm.parse_logprobs


def _scores(
    continuation: Sequence[Position], k: int, ids: bool, vocab_size: int | None, certificate: Mapping[str, Any]
) -> TokenScores:
    """Return a continuation's scores; without distributions where the server gave none."""
    log_probs = np.array([position.log_prob for position in continuation], dtype=np.float64)
    given = [position.top for position in continuation]
    if any(not top for top in given):
        return TokenScores((float(log_probs.sum()), False), certificate={**certificate, "distributions": "none"})
    is_greedy = all(position.log_prob == max(position.top.values()) for position in continuation)
    probs = [np.exp(np.fromiter(top.values(), dtype=np.float64)) for top in given]
    complete_from = max(_complete_from(p, k, ids) for p in probs)
    return TokenScores(
        (float(log_probs.sum()), is_greedy),
        log_probs=log_probs,
        large_probs=tuple(p[p >= MIN_LARGE_PROB] for p in probs),
        vocab_size=vocab_size,
        complete_from=max(complete_from, MIN_LARGE_PROB),
        certificate=certificate,
    )


def _complete_from(probs: Any, k: int, ids: bool) -> float:
    """Return a probability that no entry beside those given exceeds.

    No entry is larger than what they leave of 1. Where k tokens are told apart by id, none is larger than the k-th
    either (the echoed token, if it is a further one, is the smallest); as strings two tokens can read alike, and one
    of them is lost.
    """
    left = max(0.0, 1.0 - math.fsum(probs)) + 1e-6  # servers round to float32
    largest = min(left, float(np.sort(probs)[-k])) if ids and len(probs) >= k else left
    return math.nextafter(largest, 1.0)  # one as large as that may be missing


def _vocab_size(lm: LocalCompletionsAPI) -> int | None:
    try:
        return len(lm.tokenizer)
    except TypeError:  # tiktoken's
        return getattr(lm.tokenizer, "n_vocab", None)
