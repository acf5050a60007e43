"""Verbalized confidence: the model is asked how likely its answer is right, and replies with a percentage.

The protocol is "Verb. 2S top-1" of Tian et al. 2023, arXiv:2305.14975: the answer is given first, and questioned in a
second turn. The wording is ours.
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from lm_eval_calibration.backends.thinking import reason_for_thinking
from lm_eval_calibration.records import StatedConfidence
from lm_eval_calibration.tasks.confidences.elicitation import FollowUpElicitation, Request
from lm_eval_calibration.tasks.confidences.follow_up import AFTER_A_THOUGHT, ONE_LINE, FollowUp, last_words
from lm_eval_calibration.tasks.confidences.option import flag
from lm_eval_calibration.tasks.confidences.source import StatedSource

WORDING = "tian_2s"
"""Name of the wording, as records give it."""

QUESTION = (
    "How likely is it that your answer is correct? Reply with a percentage between 0% and 100% and nothing else, in "
    "this form:\nProbability: NUMBER%"
)

UNPARSED = "unparsed"
"""The share of docs whose reply states no probability, or whose answer can't be read."""

REPLY = "verbalized_reply"
"""The field of a samples line that holds the reply as it was given; the record holds no texts."""

_REPLY = re.compile(r"(?:Probability:\s*)?([0-9]+(?:\.[0-9]+)?)\s*%\.?")


class Verbalized(StatedSource):
    """The probability that the model states in words, as chat-only servers let it."""

    name = "verbalized"
    option = flag("verbalized")
    report_name = "in words"
    means: ClassVar = {UNPARSED: False}
    variant: ClassVar = {"verbalized": True}
    writes_only = True
    needs_named_choice = True
    left_out_message = (
        "{n} of {total} replies can't be read ({docs}); they count in acc and unparsed, and in no metric of "
        "verbalized confidence"
    )

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return whether a reply states no probability."""
        return {UNPARSED: float(record.stated[self.name].confidence is None)} if self.is_in(record) else {}

    def start(self, task: Any, lm: Any, chat_template: Any) -> "VerbalizedQuestion":
        """Return the question in the form that this run's prompts have."""
        return VerbalizedQuestion(task, lm, chat_template)


class VerbalizedQuestion(FollowUpElicitation):
    """Asks one run's model how likely its answers are right; outside a chat the form is begun for the model.

    Attributes:
        settings: how replies are generated; a model that thinks first has room to.
    """

    def __init__(self, task: Any, lm: Any, chat_template: Any) -> None:
        super().__init__(VERBALIZED.name, WORDING)
        self._thinks = bool(reason_for_thinking(lm, chat_template))
        self.settings = dict(AFTER_A_THOUGHT if self._thinks else ONE_LINE)
        if task.options.question_max_gen_toks:
            self.settings["max_gen_toks"] = task.options.question_max_gen_toks
        question = f"\n\n{QUESTION}\nProbability:" if chat_template is None else QUESTION
        self._follow_up = FollowUp(question, chat_template, task.calibration.where)

    def about(self, context: Any, answer: str) -> list[Request]:
        """Return the request that asks about an answer."""
        from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE

        return [(GENERATION_REQUEST_TYPE, (self._follow_up.prompt(context, answer), dict(self.settings)))]

    def read(self, replies: Sequence[Any]) -> StatedConfidence:
        """Return the probability that the reply states."""
        reply = str(replies[0])
        return StatedConfidence(WORDING, stated_probability(last_words(reply) if self._thinks else reply))

    def logged(self, replies: Sequence[Any]) -> dict[str, str]:
        """Return the reply."""
        return {REPLY: str(replies[0])}


def stated_probability(reply: str) -> float | None:
    """Read a percentage from 0% to 100%, alone or in the requested form, and not another word.

    Everything else has no confidence: 0.9 might be 90% or 0.9%, and a sentence might deny the number in it.
    """
    match = _REPLY.fullmatch(reply.strip())
    percentage = float(match.group(1)) if match else -1.0
    return percentage / 100 if 0 <= percentage <= 100 else None


VERBALIZED = Verbalized()
