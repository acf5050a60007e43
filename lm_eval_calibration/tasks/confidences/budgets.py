"""Budgets of thought: each thought is cut after so many tokens, and the model answers there.

Whether more thinking makes a model better calibrated is open: arXiv:2505.14489 finds that it does, arXiv:2506.18183
that it doesn't. The answer's confidence at a budget is the product of the probabilities of its tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, THINK_END
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import BudgetedAnswer
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, Request
from lm_eval_calibration.tasks.confidences.follow_up import ONE_LINE
from lm_eval_calibration.tasks.confidences.option import whole_numbers
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource, Table
from lm_eval_calibration.tasks.filtered_answers import answers_of_texts
from lm_eval_calibration.tasks.final_answers import final_answer

MAX_TOKENS = 32
"""Of an answer after a cut thought."""


class Budgets(ConfidenceSource):
    """Answers after the first tokens of a thought; the report shows them, and the table has no rows of them."""

    name = "budgets"
    tables = ("generation",)
    option = whole_numbers("budgets")

    def is_requested(self, options: Any) -> bool:
        """Whether there is a budget."""
        return bool(options["budgets"])

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return none."""
        return {}

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return no doc."""
        return ()

    def is_in(self, record: Any) -> bool:
        """Whether thoughts were cut."""
        return bool(getattr(record, "budgets", None))

    def start(self, task: Any, lm: Any, chat_template: Any) -> "CutThoughts":
        """Return what cuts the thoughts of this run."""
        return CutThoughts(task, getattr(lm, "think_end_token", None))


class CutThoughts(Elicitation):
    """Cuts one run's thoughts, closes them and asks for the answers.

    What the harness takes away from a text is its thought; where it takes nothing, the whole text is.

    Args:
        task: the calibrated task.
        think_end: the string that closes a thought, if the backend was told of one.
    """

    def __init__(self, task: Any, think_end: Any) -> None:
        super().__init__(BUDGETS.name, tuple(task.options["budgets"]))
        self.task, self.budgets, self.cue = task, self.setting, task.options.budget_cue
        self.think_end = think_end if isinstance(think_end, str) else THINK_END
        self.n_requests = len(self.budgets)
        self._answers: Mapping[int, Sequence[Any]] = {}
        if getattr(task, "UNSAFE_CODE", False):
            raise TaskError(f"{task.calibration.where}: budgets ask for a short answer, and this one is a program")

    def about(self, context: Any, answer: str) -> list[Request]:
        """Return a request for the answer after each budget."""
        if not isinstance(context, str):
            raise TaskError(
                f"{self.task.calibration.where}: budgets continue a text, and a chat's messages end in turns"
            )
        settings = {**ONE_LINE, "max_gen_toks": MAX_TOKENS}
        prompts = [f"{context}{self._cut(answer, budget)}{self.cue}" for budget in self.budgets]
        return [(GENERATION_REQUEST_TYPE, (prompt, dict(settings))) for prompt in prompts]

    def see_answers(self, requests: Sequence[Any]) -> None:
        """Let the task's filter see the cue with every answer that followed, all at once."""
        asked = [
            SimpleNamespace(doc=request.doc, doc_id=request.doc_id, resps=[f"{self.cue}{r}" for r in replies])
            for request in requests
            if (replies := self.task.replies_to(request.resps[0])[self.name])
        ]
        self._answers = answers_of_texts(asked, self.task.scored_ensemble, self.task.calibration.where)

    def fields_of_answer(self, request: Any, replies: Sequence[Any]) -> dict[str, Any]:
        """Return the answer after each budget; none where the thought's tokens are not known."""
        ends = _ends(request.resps[0])
        if ends is None:
            logger.warning(f"{self.task.task_name}: some thoughts could not be cut, since their tokens are not known")
            return {}
        rows = zip(self.budgets, replies, self._answers[request.doc_id], strict=True)
        return {"budgets": tuple(self._answer(request.doc, len(ends), *row) for row in rows)}

    def _answer(self, doc: dict[str, Any], n_tokens: int, budget: int, reply: Any, answer: Any) -> BudgetedAnswer:
        located = self.task.locate(doc, f"{self.cue}{reply}", answer)
        start, end = (-1, -1) if located.span is None else (place - len(self.cue) for place in located.span)
        final = final_answer(reply, located._replace(span=(start, end) if start >= 0 else None))
        probability = None
        if final.tokens is not None and reply.token_log_probs is not None:
            probability = float(np.exp(np.sum(reply.token_log_probs[slice(*final.tokens)])))
        return BudgetedAnswer(budget, n_tokens, final.outcome, self.task.outcome_of(doc, answer), probability)

    def _cut(self, text: Any, budget: int) -> str:
        """Return the first tokens of a thought, closed if the harness takes thoughts away."""
        ends, is_taken_away = _ends(text), bool(text.thought)
        thought = text.thought if is_taken_away else str(text)
        kept = thought if ends is None or budget >= len(ends) else thought[: ends[budget - 1]] if budget else ""
        return f"{kept}{self.think_end}\n" if is_taken_away and self.think_end not in kept else kept


def _ends(text: Any) -> Any:
    """Return how many characters of the thought its tokens spell, up to and including each; None where unknown."""
    return text.thought_ends if text.thought else text.token_ends


BUDGETS = Budgets()
