"""P(true): the model's own answer is put into a query; the probability of its calling it right is its confidence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, TokenScores, is_token_prefix
from lm_eval_calibration.backends.api.first_token import is_listed, is_of_first_token
from lm_eval_calibration.records import StatedConfidence
from lm_eval_calibration.tasks.confidences.follow_up import FollowUp
from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES


@dataclass(frozen=True)
class QueryRequests:
    """Asks one run's model whether answers are right.

    Attributes:
        name: of the wording.
        continuations: what the model may say, in the form that continues its prompts.
        follow_up: puts the query behind an answer.
    """

    name: str
    continuations: tuple[str, str]
    follow_up: FollowUp

    @classmethod
    def of(cls, name: str, chat_template: Callable[..., Any] | None, where: str) -> "QueryRequests":
        """Return the wording as this run asks it; in a chat what the model says begins its turn, without a blank."""
        query = QUERIES[name]
        first, second = query.continuations if chat_template is None else (c.strip() for c in query.continuations)
        return cls(name, (first, second), FollowUp(query.question, chat_template, where))

    def is_nested(self, lm: Any) -> bool:
        """Whether a backend spells what calls an answer right as what calls it wrong and more tokens.

        False without a backend, as outside a run.
        """
        true = QUERIES[self.name].true
        context = self.follow_up.prompt("Question", "Answer")  # the tokens at its end are those of every query
        return lm is not None and is_token_prefix(lm, context, self.continuations[1 - true], self.continuations[true])

    def after(self, context: Any, answer: str) -> list[tuple[Any, str]]:
        """Return context and continuation of the two requests that query an answer."""
        prompt = self.follow_up.prompt(context, answer)
        return [(prompt, continuation) for continuation in self.continuations]


def query_requests(queries: QueryRequests, choices: Sequence[Instance], idx: int) -> list[Instance]:
    """Return the requests that query every choice of a doc, as if each were the model's answer.

    Args:
        queries: the wording.
        choices: the requests of the choices.
        idx: number of the first of these requests among the doc's.
    """
    requests: list[Instance] = []
    for number, choice in enumerate(choices):
        for pair in queries.after(*choice.args[:2]):
            request = Instance(SCORING_REQUEST_TYPE, choice.doc, pair, idx + len(requests), choice.metadata)
            request.queried = (queries.name, number)
            requests.append(request)
    return requests


def judged(name: str, answers: Sequence[Any], *, nested: bool) -> StatedConfidence:
    """Return what the model says of one answer.

    Args:
        name: of the wording.
        answers: to the two requests that query it.
        nested: see :meth:`QueryRequests.is_nested`.
    """
    if all(
        isinstance(answer, TokenScores) and is_of_first_token(answer) and not is_listed(answer) for answer in answers
    ):
        return StatedConfidence(name, None)  # a chat server tells neither's probability
    p_true = QUERIES[name].p_true([float(answer[0]) for answer in answers], nested=nested)
    return StatedConfidence(name, None if math.isnan(p_true) else p_true)
