"""The options of a doc in the place of its answer: how probable each of them was after the model's own thought.

Where a chain of thought ends in a choice, the choices have the probabilities that they have where nothing but a letter
is written, given the thought.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, tokens_of_span
from lm_eval_calibration.backends.tokens import INCOMPLETE
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.records import ANSWERED, AnswerOptions
from lm_eval_calibration.tasks.answer_spans import LocatedAnswer
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, Request
from lm_eval_calibration.tasks.doc_options import DocOptions, options_of
from lm_eval_calibration.tasks.final_answers import final_answer


class _Place(NamedTuple):
    """Where the options are scored.

    Attributes:
        before: the part of the text that ends where the first token of the answer begins.
        continuations: for each option, this token and all up to the end of the answer's last token.
        answer: index of the option that the model wrote.
        gold: index of the right one.
    """

    before: str
    continuations: Sequence[str]
    answer: int
    gold: int | None


class OptionsAtAnswer(Elicitation):
    """Scores each option of a doc where the model wrote one of them."""

    n_requests = None

    def __init__(self, name: str, task: Any) -> None:
        super().__init__(name, task.options["answer_options"])
        self.task = task
        self._options(task.task_docs[0])  # what is wrong with the options is said before the model runs

    def about_answer(self, request: Any, text: Any) -> list[Request]:
        """Return a request for each option: it continues the prompt, the thought, and the text before the answer."""
        place = self._place(request.doc, text, self.task.locate(request.doc, text))
        if place is None or not isinstance(request.args[0], str):
            return []
        context = f"{request.args[0]}{getattr(text, 'thought', '')}{place.before}"
        return [(SCORING_REQUEST_TYPE, (context, continuation)) for continuation in place.continuations]

    def see_answers(self, requests: Sequence[Any]) -> None:
        """Say how many answers are none of their doc's options."""
        none, n_answers = [], 0
        for request in requests:
            text = request.resps[0]
            located = self.task.locate(request.doc, text)
            if final_answer(text, located, refusal=self.task.options.refusal).outcome == ANSWERED:
                n_answers += 1
                none += [] if self._place(request.doc, text, located) else [request.doc_id]
        if none:
            logger.warning(
                f"{self.task.task_name}: {len(none)} of {n_answers} answers are none of their doc's options, or "
                f"nobody knows these (docs {', '.join(map(str, none[:10]))}{', ...' if none[10:] else ''}): "
                "metrics of the final answer are those of its tokens' probability"
            )

    def fields_of_answer(self, request: Any, replies: Sequence[Any]) -> dict[str, Any]:
        """Return the options' log-likelihoods."""
        place = self._place(request.doc, request.resps[0], self.task.locate(request.doc, request.resps[0]))
        if not replies or place is None:
            return {}
        log_likelihoods = tuple(float(reply[0]) for reply in replies)
        return {"options": AnswerOptions(log_likelihoods, place.answer, place.gold)}

    def _place(self, doc: dict[str, Any], text: Any, located: LocatedAnswer) -> _Place | None:
        """Return where a doc's options are scored; None where the answer is none of them, or nobody knows where."""
        options = self._options(doc)
        if options is None or not located.is_found or located.span is None:
            return None
        (start, end), answer = located.span, options.which(located.answer)
        written = options.in_place_of(text[start:end])
        if answer is None or written is None or written[answer] != text[start:end]:
            return None
        first, last = _ends_of_tokens(text, start, end)
        continuations = [f"{text[first:start]}{option}{text[end:last]}" for option in written]
        return _Place(text[:first], continuations, answer, options.gold)

    def _options(self, doc: dict[str, Any]) -> DocOptions | None:
        return options_of(self.task, doc, self.setting)


def _ends_of_tokens(text: Any, start: int, end: int) -> tuple[int, int]:
    """Return where the first token of a part of a text begins and its last one ends: as the part does if nobody knows.

    The same where a token holds broken characters, which can't be written as that token again.
    """
    ends = getattr(text, "token_ends", None)
    if ends is None or not start < end:
        return start, end
    tokens = tokens_of_span(ends, start, end)
    first, last = (int(ends[tokens.start - 1]) if tokens.start else 0), int(ends[tokens.stop - 1])
    return (start, end) if INCOMPLETE in text[first:last] else (first, last)
