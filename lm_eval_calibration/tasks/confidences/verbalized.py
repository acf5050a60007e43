"""Verbalized confidence: the model is asked in words how likely its answer is right, and says a percentage.

The protocol is "Verb. 2S top-1" of Tian et al. 2023, arXiv:2305.14975: the answer is given first, and asked about in
a second turn. The wording is ours.
"""

import re
from collections.abc import Callable
from typing import Any

from lm_eval_calibration.records import StatedConfidence
from lm_eval_calibration.tasks.confidences.follow_up import FollowUp

WORDING = "tian_2s"
"""Name of the wording, as records give it."""

QUESTION = (
    "How likely is it that your answer is correct? Reply with a percentage between 0% and 100% and nothing else, in "
    "this form:\nProbability: NUMBER%"
)

SETTINGS = {"until": ["\n"], "max_gen_toks": 32, "do_sample": False, "temperature": 0.0}
"""How the reply is generated, and the letter of a choice: one line, greedily."""

UNPARSED = "unparsed"
"""The share of docs whose reply states no probability, or whose answer can't be read."""

REPLY = "verbalized_reply"
"""The field of a samples line that holds the reply as it was given."""

_REPLY = re.compile(r"(?:Probability:\s*)?([0-9]+(?:\.[0-9]+)?)\s*%\.?")


def question_about(chat_template: Callable[..., Any] | None, where: str) -> FollowUp:
    """Return what puts the question behind an answer; outside a chat the form is begun for the model."""
    plain = f"\n\n{QUESTION}\nProbability:"
    return FollowUp(plain if chat_template is None else QUESTION, chat_template, where)


def stated(reply: str) -> StatedConfidence:
    """Read a reply: a percentage from 0% to 100%, alone or in the form asked for, and not another word.

    Everything else has no confidence: 0.9 might be 90% or 0.9%, and a sentence might deny the number in it.
    """
    match = _REPLY.fullmatch(reply.strip())
    percentage = float(match.group(1)) if match else -1.0
    return StatedConfidence(WORDING, percentage / 100 if 0 <= percentage <= 100 else None)
