"""Two stages in one request: the model writes an answer, and is then asked about it."""

import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM

from lm_eval_calibration.backends.generated_text import GeneratedText

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level


def answers_with_follow_ups(lm: LM, requests: Sequence[Any], generation_request_type: str) -> list[GeneratedText]:
    """Go on from each prompt, then answer the requests that each answer leads to.

    Both stages are requests of types that there are already, cached and computed as these are; those of the second
    stage go to the backend all at once. Where it has no method for them (a chat server gives no log-likelihoods), its
    answers stand without.

    Args:
        lm: any backend of the harness.
        requests: as for the first stage's type, each with the attribute ``follow_ups``, a function that takes the
            text and returns instances with the attribute ``request_type``.
        generation_request_type: name of the first stage's method.

    Returns:
        One text for each request, ``asked`` set to the answers in the order of the instances.
    """
    texts: list[GeneratedText] = getattr(lm, generation_request_type)(requests)
    asked = [request.follow_ups(str(text)) for request, text in zip(requests, texts, strict=True)]
    distinct: dict[str, dict[str, Any]] = {}  # equal answers to a prompt lead to equal requests
    for follow_up in (follow_up for follow_ups in asked for follow_up in follow_ups):
        distinct.setdefault(follow_up.request_type, {}).setdefault(_key(follow_up), follow_up)
    answers: dict[tuple[str, str], Any] = {}
    for request_type, follow_ups in distinct.items():
        try:
            found = getattr(lm, request_type)(list(follow_ups.values()))
        except NotImplementedError as error:
            logger.warning("%s can't be asked about its answers: %s", type(lm).__name__, error or request_type)
            continue
        answers |= {(request_type, key): answer for key, answer in zip(follow_ups, found, strict=True)}
    return [
        text.with_asked(answers.get((follow_up.request_type, _key(follow_up))) for follow_up in follow_ups)
        for text, follow_ups in zip(texts, asked, strict=True)
    ]


def _key(request: Any) -> str:
    return repr((request.doc_id, request.args))
