"""Servers that speak OpenAI's completions protocol: the prompt echoed, with the k most probable tokens at each place.

The harness asks for one log-probability a position; here the same request asks for as many as the server gives, and
what comes back is read in full. Everything else (batches, concurrency, retries, order) stays the harness's.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import requests as http
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from lm_eval_calibration.scoring.echo import EchoCheck, positions
from lm_eval_calibration.scoring.token_scores import TokenScores
from lm_eval_calibration.scoring.top_k import K, paid_for, scores_of
from lm_eval_calibration.scoring.versions import versions

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, TokenScores], None]

ASKED: tuple[Mapping[str, Any], ...] = (
    {"logprobs": K, "return_tokens_as_token_ids": True},
    {"logprobs": K},
    {"logprobs": 5},
    {"logprobs": 1},
)
"""What a server may grant, best first. Ids (vLLM's way) tell tokens apart that read alike."""

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
    todo = []
    for i, known in enumerate(paid_for(lm, requests)):
        if known is None:
            todo.append(i)
        else:
            keep(i, known)
    if not todo:
        return
    check = EchoCheck()
    with _asking_for(lm, _granted(lm), check) as certificate:
        answers = lm.loglikelihood([requests[i] for i in todo])
    if check.is_shifted:
        logger.warning("%s at %s: %s", type(lm).__name__, lm.base_url, check.message)
        certificate["suspect"] = check.message  # of every answer: it is one mapping
    for i, scores in zip(todo, answers, strict=True):
        keep(i, scores)


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
def _asking_for(lm: LocalCompletionsAPI, extra: Mapping[str, Any], check: EchoCheck) -> Iterator[dict[str, Any]]:
    """Let the backend ask for ``extra`` and answer with what comes of it, as long as the context lasts.

    Gives the certificate of the answers.
    """
    k = int(extra["logprobs"])
    certificate: dict[str, Any] = {
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
            continuation = echoed[context_length:]
            answers.append(scores_of(continuation, k, are_ids=ids, vocab_size=_vocab_size(lm), certificate=certificate))
        return answers

    # Instance attributes shadow the class's methods, as for hf.
    lm._create_payload, lm.parse_logprobs = payload, parse
    try:
        yield certificate
    finally:
        del lm._create_payload, lm.parse_logprobs


def _vocab_size(lm: LocalCompletionsAPI) -> int | None:
    try:
        return len(lm.tokenizer)
    except TypeError:  # tiktoken's
        return getattr(lm.tokenizer, "n_vocab", None)
