"""Chat servers: no log-probabilities of a prompt exist there, so a choice is read from the answer's first token.

The prompt is the stock task's own, as the harness's chat path sends it (``--apply_chat_template``). Each is sent once,
for one token and the most probable ones at its position, at temperature 1: then probabilities are the model's own also
where a server gives them as they are after the temperature. The token that the server draws is ignored.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from lm_eval.models.openai_completions import LocalChatCompletion

from lm_eval_calibration.backends.api.capability import CHAT_TOP_OPTIONS, PROBE, choices_of, probe
from lm_eval_calibration.backends.api.first_token import DISTRIBUTIONS, choice_scores, reason_unreadable, top_tokens
from lm_eval_calibration.backends.api.reasoning import reason_in_answer
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import checked_model_call, generate_until
from lm_eval_calibration.backends.registry import SCORING_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.top_k import K
from lm_eval_calibration.errors import UserError

_SETTINGS = {"max_gen_toks": 1, "temperature": 1.0, "top_p": 1.0}
"""Of the one token."""


@register(
    "lm_eval.models.openai_completions.LocalChatCompletion",
    request_type=SCORING_REQUEST_TYPE,
    stock_methods=("generate_until", "model_call", "amodel_call"),
)
def score_choices(lm: LocalChatCompletion, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every choice of a doc by the first token of one answer.

    Raises:
        UserError: naming task, doc and choice: it can't be read from one token; or the prompts are no chats, or the
            server gives no log-probabilities.
    """
    docs = list(_by_doc(requests).values())
    for numbers in docs:
        _check([requests[i] for i in numbers])
    if not docs:
        return
    k = _accepted_k(lm)
    about = certificate(lm, distributions=DISTRIBUTIONS, k=k)
    logger.warning(
        "%s: choices are read from the first token of the answer (%d most probable tokens); full_ece is left out: it "
        "needs the right answer's own tokens.",
        type(lm).__name__,
        k,
    )

    def payload(messages: Any, **options: Any) -> dict[str, Any]:
        stock: dict[str, Any] = type(lm)._create_payload(lm, messages, **options)
        stock.pop("stop", None)  # a first token that ends the answer is one of them, too
        return {**stock, "logprobs": True, "top_logprobs": k}

    def parse(outputs: Any, **_: Any) -> list[Any]:
        outputs = outputs if isinstance(outputs, list) else [outputs]
        answers = [(choice, output) for output in outputs for choice in output.get("choices") or [{}]]
        for choice, output in answers:
            _refuse_thought(lm, choice, output)
        return [top_tokens(choice) for choice, _ in answers]

    def deliver_doc(number: int, top: Any) -> None:
        numbers = docs[number]
        scores = choice_scores(top, [requests[i].args[1] for i in numbers], about)
        for i, answer in zip(numbers, scores, strict=True):
            deliver(i, answer)

    prompts = [SimpleNamespace(args=(requests[numbers[0]].args[0], dict(_SETTINGS))) for numbers in docs]
    call = checked_model_call(lm, lambda outputs, _: parse(outputs))
    generate_until(lm, prompts, deliver_doc, _create_payload=payload, parse_generations=parse, model_call=call)


def _by_doc(requests: Sequence[Any]) -> dict[Any, list[int]]:
    """Return the numbers of the requests that are choices of one doc after one prompt."""
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault((request.task_name, request.doc_id, request.args[0]), []).append(i)
    return groups


def _check(choices: Sequence[Any]) -> None:
    """Refuse what a chat server can't answer."""
    request, (prompt, _) = choices[0], choices[0].args
    location = f"{request.task_name} doc {request.doc_id}"
    if isinstance(prompt, str):
        raise UserError(f"{location}: a chat server takes messages: add --apply_chat_template")
    if reason := reason_unreadable([choice.args[1] for choice in choices]):
        raise UserError(f"{location}: {reason}, so it can't be read from the first token of a chat server's answer")


def _accepted_k(lm: LocalChatCompletion) -> int:
    """Return how many of the most probable tokens the server gives, at most ``K``."""
    message = {"role": "user", "content": PROBE}
    request = lm._create_payload([message], generate=True, gen_kwargs=dict(_SETTINGS), seed=lm._seed)
    request.pop("stop", None)
    probed = probe(lm, request, CHAT_TOP_OPTIONS)
    if probed.is_inconclusive:
        return K
    reason = probed.refusal
    try:
        if probed.options is not None:
            _refuse_thought(lm, next(iter(choices_of(probed.answer)), {}), probed.answer)
            k = len(top_tokens(next(iter(choices_of(probed.answer)), {})))
            if k < K:
                logger.info("%s gives %d tokens (refused more: %s)", lm.base_url, k, reason or "silently")
            return k
    except ValueError as error:
        reason = str(error)
    raise UserError(
        f"{lm.base_url} gives no log-probabilities of its answers (asked for logprobs=true, top_logprobs={K} to "
        f"{CHAT_TOP_OPTIONS[-1]['top_logprobs']}): {reason}. Choices can't be read without them"
    )


def _refuse_thought(lm: LocalChatCompletion, choice: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    if reason := reason_in_answer(choice, output):
        raise UserError(f"{lm.base_url}: the model {reason}, so the first token of its answer names no choice")
