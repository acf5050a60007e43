"""Chat servers: no log-probabilities of a prompt exist there, so a choice is read from the answer's first token.

The prompt is the stock task's own, as the harness's chat path sends it (``--apply_chat_template``). Each is asked once,
for one token and the most probable ones in its place, at temperature 1: then probabilities are the model's own also
where a server tells them as they are after the temperature. What the server draws is not looked at.
"""

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from lm_eval.models.openai_completions import LocalChatCompletion

from lm_eval_calibration.backends.api.capability import first_granted
from lm_eval_calibration.backends.api.first_token import DISTRIBUTIONS, choice_scores, problem_of_choices, top_of
from lm_eval_calibration.backends.stock_calls import generate, read_at_once
from lm_eval_calibration.backends.token_scores import TokenScores
from lm_eval_calibration.backends.top_k import K
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields
from lm_eval_calibration.errors import UserError

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

ASKED = tuple({"logprobs": True, "top_logprobs": k} for k in (K, 10, 5))
"""What a server may grant, best first; with fewer tokens letters are not worth reading."""

_SETTINGS = {"max_gen_toks": 1, "temperature": 1.0, "top_p": 1.0}
"""Of the one token."""


_OURS_ONLY_IF_STOCK = ("generate_until", "model_call", "amodel_call")


def refusal(lm: LocalChatCompletion) -> str | None:
    """Say why a backend's answers can't be read here (None: they can)."""
    changed = [
        name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(LocalChatCompletion, name)
    ]
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: LocalChatCompletion, requests: Sequence[Any], keep: Callable[[int, TokenScores], None]) -> None:
    """Score every request (see :func:`lm_eval_calibration.backends.token_scores`).

    Raises:
        UserError: naming task, doc and choice: it can't be read from one token; or the prompts are no chats, or the
            server gives no log-probabilities.
    """
    asked = list(_by_doc(requests).values())
    for numbers in asked:
        _check([requests[i] for i in numbers])
    if not asked:
        return
    certificate = {
        "backend": type(lm).__name__,
        "distributions": DISTRIBUTIONS,
        "k": _granted_k(lm),
        **tokenizer_fields(lm),
        "versions": versions("lm-eval"),
    }

    logger.warning(
        "%s: choices are read from the first token of the answer (%d most probable tokens); full_ece is left out: it "
        "needs the right answer's own tokens.",
        type(lm).__name__,
        certificate["k"],
    )

    def payload(messages: Any, **options: Any) -> dict[str, Any]:
        stock: dict[str, Any] = type(lm)._create_payload(lm, messages, **options)
        stock.pop("stop", None)  # a first token that ends the answer is one of them, too
        return {**stock, "logprobs": True, "top_logprobs": certificate["k"]}

    def parse(outputs: Any, **_: Any) -> list[Any]:
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [top_of(choice) for output in outputs for choice in output.get("choices") or [{}]]

    def take(number: int, top: Any) -> None:
        numbers = asked[number]
        scores = choice_scores(top, [requests[i].args[1] for i in numbers], certificate)
        for i, of_choice in zip(numbers, scores, strict=True):
            keep(i, of_choice)

    prompts = [SimpleNamespace(args=(requests[numbers[0]].args[0], dict(_SETTINGS))) for numbers in asked]
    call = read_at_once(lm, lambda outputs, _: parse(outputs))
    generate(lm, prompts, take, _create_payload=payload, parse_generations=parse, model_call=call)


def _by_doc(requests: Sequence[Any]) -> dict[Any, list[int]]:
    """Return the numbers of the requests that are choices of one doc after one prompt."""
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault((request.task_name, request.doc_id, request.args[0]), []).append(i)
    return groups


def _check(choices: Sequence[Any]) -> None:
    """Refuse what can't be asked of a chat server."""
    request, (prompt, _) = choices[0], choices[0].args
    place = f"{request.task_name} doc {request.doc_id}"
    if isinstance(prompt, str):
        raise UserError(f"{place}: a chat server is asked in messages: add --apply_chat_template")
    if problem := problem_of_choices([choice.args[1] for choice in choices]):
        raise UserError(f"{place}: {problem}, so it can't be read from the first token of a chat server's answer")


def _granted_k(lm: LocalChatCompletion) -> int:
    """Return how many tokens the server tells, of as many as it is asked for."""
    request = lm._create_payload(
        [{"role": "user", "content": "One and two"}], generate=True, gen_kwargs=dict(_SETTINGS), seed=lm._seed
    )
    request.pop("stop", None)
    grant = first_granted(lm, request, ASKED)
    if grant.is_unknown:
        return K
    reason = grant.refused
    try:
        if grant.options is not None:
            k = len(top_of((grant.answer.get("choices") or [{}])[0]))
            if k < K:
                logger.info("%s tells %d tokens (refused more: %s)", lm.base_url, k, grant.refused or "in silence")
            return k
    except ValueError as error:
        reason = str(error)
    raise UserError(
        f"{lm.base_url} gives no log-probabilities of its answers (asked for logprobs=true, top_logprobs={K} to "
        f"{ASKED[-1]['top_logprobs']}): {reason}. Choices can't be read without them"
    )
