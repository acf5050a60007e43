"""P(true): the model's own answer is put into a query; the probability of its calling it right is its confidence."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from lm_eval_calibration.records import StatedConfidence
from lm_eval_calibration.tasks.confidences.elicitation import FollowUpElicitation, Request
from lm_eval_calibration.tasks.confidences.follow_up import FollowUp
from lm_eval_calibration.tasks.confidences.option import one_of
from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
from lm_eval_calibration.tasks.confidences.source import StatedSource


class PTrue(StatedSource):
    """The probability with which the model calls its answer right."""

    name = "p_true"
    option = one_of("p_true", QUERIES, default="", what="the wordings are")
    report_name = "P(true)"
    variant: ClassVar = {"p_true": next(iter(QUERIES))}
    left_out_message = (
        "of {n} of {total} answers the model says neither that they are right nor that they are wrong ({docs}); they "
        "are in no metric of P(true)"
    )

    def start(self, task: Any, lm: Any, chat_template: Any) -> "PTrueQueries":
        """Return the query in the form that this run's prompts have."""
        return PTrueQueries(task, lm, chat_template)


class PTrueQueries(FollowUpElicitation):
    """Queries one run's model whether answers are right.

    Attributes:
        continuations: what the model may say, in the form that continues its prompts: in a chat it begins the model's
            turn, without a blank.
        is_nested: whether the backend spells what calls an answer right as what calls it wrong and more tokens; False
            without a backend.
    """

    n_requests = 2

    def __init__(self, task: Any, lm: Any, chat_template: Any) -> None:
        from lm_eval_calibration.backends import is_token_prefix
        from lm_eval_calibration.backends.thinking import without_thinking

        super().__init__(P_TRUE.name, task.options["p_true"], lm)
        self.query = QUERIES[self.setting]
        first, second = self.query.continuations
        self.continuations = (first, second) if chat_template is None else (first.strip(), second.strip())
        with without_thinking(lm):
            self._follow_up = FollowUp(self.query.question, chat_template, task.calibration.where, at_once=True)
        true = self.query.true
        context = self._follow_up.prompt("Question", "Answer")  # the tokens at its end are those of every query
        self.is_nested = lm is not None and is_token_prefix(
            lm, context, self.continuations[1 - true], self.continuations[true]
        )

    def about(self, context: Any, answer: str) -> list[Request]:
        """Return the requests that score the two verdicts on an answer."""
        from lm_eval_calibration.backends import SCORING_REQUEST_TYPE

        prompt = self._follow_up.prompt(context, answer)
        return [(SCORING_REQUEST_TYPE, (prompt, continuation)) for continuation in self.continuations]

    def read(self, replies: Sequence[Any]) -> StatedConfidence:
        """Return P(true); None where neither verdict has a probability, or a chat server lists neither."""
        from lm_eval_calibration.backends import TokenScores
        from lm_eval_calibration.backends.api.first_token import is_listed, is_of_first_token

        if all(isinstance(r, TokenScores) and is_of_first_token(r) and not is_listed(r) for r in replies):
            return StatedConfidence(self.setting, None)
        p_true = self.query.p_true([float(reply[0]) for reply in replies], nested=self.is_nested)
        return StatedConfidence(self.setting, None if math.isnan(p_true) else p_true)


P_TRUE = PTrue()
