"""Two stages in one request: the model writes an answer, and further requests follow it up."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM

from lm_eval_calibration.backends.answer_types import GeneratedText
from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE


def with_follow_ups(lm: LM, requests: Sequence[Any]) -> list[GeneratedText]:
    """Continue each request's context, then answer the requests that follow each text up.

    The requests' attribute ``follow_ups`` is a function that takes the text and returns instances of other request
    types. Both stages are cached and computed as their types are; the second goes to the backend all at once. Each
    text's ``follow_up_answers`` and ``follow_up_sources`` are in the order of its instances; answers are None where the
    backend has no method for them (a chat server gives no log-likelihoods).
    """
    texts: list[GeneratedText] = getattr(lm, GENERATION_REQUEST_TYPE)(requests)
    follow_ups = [request.follow_ups(text) for request, text in zip(requests, texts, strict=True)]
    distinct: dict[str, dict[str, Any]] = {}  # equal answers to a prompt lead to equal requests
    for follow_up in (follow_up for of_text in follow_ups for follow_up in of_text):
        distinct.setdefault(follow_up.request_type, {}).setdefault(_key(follow_up), follow_up)
    answers: dict[tuple[str, str], Any] = {}
    for request_type, by_key in distinct.items():
        try:
            found = getattr(lm, request_type)(list(by_key.values()))
        except NotImplementedError as error:
            logger.warning("%s can't answer follow-up questions: %s", type(lm).__name__, error or request_type)
            continue
        answers |= {(request_type, key): answer for key, answer in zip(by_key, found, strict=True)}
    return [
        text.with_follow_up_answers(
            [answers.get((follow_up.request_type, _key(follow_up))) for follow_up in of_text],
            [getattr(follow_up, "source", "") for follow_up in of_text],
        )
        for text, of_text in zip(texts, follow_ups, strict=True)
    ]


def _key(request: Any) -> str:
    return repr((request.doc_id, request.args))
