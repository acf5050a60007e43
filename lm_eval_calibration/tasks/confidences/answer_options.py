"""The options of a doc in the place of its answer: how probable each of them was after the model's own thought.

Where a chain of thought ends in a choice, the choices have the probabilities that they have where nothing but a letter
is written, given the thought.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, tokens_of_span
from lm_eval_calibration.backends.api.first_token import choice_scores, is_listed, reads_as, reason_unreadable
from lm_eval_calibration.backends.tokens import INCOMPLETE
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.records import ANSWERED, AnswerOptions, GenerationRecord
from lm_eval_calibration.tasks.answer_spans import LocatedAnswer
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, Request
from lm_eval_calibration.tasks.doc_options import AROUND, DocOptions, options_of
from lm_eval_calibration.tasks.final_answers import final_answer


def prevail(n_with_options: int, n_answers: int) -> bool:
    """Whether so many answers have options that the metrics of the final answer are over these: at least half."""
    return 0 < n_answers <= 2 * n_with_options


def has_options(record: Any) -> bool:
    """Whether a doc's answer is one of its options, whose probabilities are known, and so is the right answer."""
    is_answered = isinstance(record, GenerationRecord) and record.generation.outcome == ANSWERED
    return bool(is_answered and record.options is not None and record.options.gold is not None)


class _Place(NamedTuple):
    """Where one of a doc's options is written.

    Attributes:
        start: the character of the text where it begins.
        end: the one after its last.
        written: for each option, what would stand there instead.
        answer: index of the one that the model wrote.
        gold: index of the right one.
    """

    start: int
    end: int
    written: Sequence[str]
    answer: int
    gold: int | None


class OptionsAtAnswer(Elicitation):
    """The options of a doc where the model wrote one of them."""

    lacking = "are none of their doc's options, or nobody knows these"
    """What keeps answers from having options, in the words of a warning."""

    def __init__(self, name: str, task: Any) -> None:
        super().__init__(name, task.options["answer_options"])
        self.task = task
        self._options(task.task_docs[0])  # what is wrong with the options is said before the model runs

    def is_known(self, doc: dict[str, Any], text: Any, place: _Place) -> bool:
        """Whether the options' probabilities can be known."""
        return True

    def see_answers(self, requests: Sequence[Any]) -> None:
        """Say how many answers have no options where so many haven't that metrics are not over them."""
        lacking, n_answers = [], 0
        for request in requests:
            text = request.resps[0]
            located = self.task.locate(request.doc, text)
            if final_answer(text, located, refusal=self.task.options.refusal).outcome == ANSWERED:
                n_answers += 1
                place = self._place(request.doc, text, located)
                if place is None or place.gold is None or not self.is_known(request.doc, text, place):
                    lacking.append(request.doc_id)
        if lacking and not prevail(n_answers - len(lacking), n_answers):
            logger.warning(
                f"{self.task.task_name}: {len(lacking)} of {n_answers} answers {self.lacking} "
                f"(docs {', '.join(map(str, lacking[:10]))}{', ...' if lacking[10:] else ''}), so metrics of the final "
                "answer are those of its tokens' probability"
            )

    def _place(self, doc: dict[str, Any], text: Any, located: LocatedAnswer | None = None) -> _Place | None:
        """Return where a doc's options stand; None where the answer is none of them, or nobody knows where."""
        located = self.task.locate(doc, text) if located is None else located
        options = self._options(doc)
        if options is None or not located.is_found or located.span is None:
            return None
        (start, end), answer = located.span, options.which(located.answer)
        written = options.in_place_of(text[start:end])
        if answer is None or written is None or written[answer] != text[start:end]:
            return None
        return _Place(start, end, written, answer, options.gold)

    def _options(self, doc: dict[str, Any]) -> DocOptions | None:
        return options_of(self.task, doc, self.setting)


class ScoredOptions(OptionsAtAnswer):
    """Scores each option in the answer's place."""

    n_requests = None

    def about_answer(self, request: Any, text: Any) -> list[Request]:
        """Return a request for each option: it continues the prompt, the thought, and the text before the answer."""
        place = self._place(request.doc, text)
        if place is None or not isinstance(request.args[0], str):
            return []
        # From the beginning of the answer's first token to the end of its last one.
        first, last = _ends_of_tokens(text, place.start, place.end)
        context = f"{request.args[0]}{getattr(text, 'thought', '')}{text[:first]}"
        before, after = text[first : place.start], text[place.end : last]
        return [(SCORING_REQUEST_TYPE, (context, f"{before}{option}{after}")) for option in place.written]

    def fields_of_answer(self, request: Any, replies: Sequence[Any]) -> dict[str, Any]:
        """Return the options' log-likelihoods."""
        place = self._place(request.doc, request.resps[0])
        if not replies or place is None:
            return {}
        log_likelihoods = tuple(float(reply[0]) for reply in replies)
        return {"options": AnswerOptions(log_likelihoods, place.answer, place.gold)}


class ListedOptions(OptionsAtAnswer):
    """Reads the options from the most probable tokens at the answer's position, where a backend scores no given text.

    They are read as the first token of a chat server's answer is, bounds and all.
    """

    lacking = "are none of their doc's options, or their token spells more or less than one, or was not listed"

    def position_in(self, doc: dict[str, Any], text: Any) -> int | None:
        """Return which of a text's tokens is the option that it writes; None where none of them is."""
        place = self._place(doc, text)
        return None if place is None else _token_of_option(text, place)

    def is_known(self, doc: dict[str, Any], text: Any, place: _Place) -> bool:
        """Whether the backend lists tokens there."""
        return bool(getattr(text, "top_tokens", None) and text.top_tokens.tokens)

    def fields_of_answer(self, request: Any, replies: Sequence[Any]) -> dict[str, Any]:
        """Return the options' log-likelihoods and bounds."""
        text = request.resps[0]
        place = self._place(request.doc, text)
        if place is None or not self.is_known(request.doc, text, place):
            return {}
        tokens = text.top_tokens.tokens
        scores = choice_scores(tokens, [option.strip(AROUND) for option in place.written], {})
        options = AnswerOptions(
            tuple(float(score[0]) for score in scores),
            place.answer,
            place.gold,
            k=len(tokens),
            bounded=tuple(i for i, score in enumerate(scores) if not is_listed(score)),
        )
        return {"options": options}


def _token_of_option(text: Any, place: _Place) -> int | None:
    """Return the token that is the option, and no more, where each option can be read from one token."""
    options = [option.strip(AROUND) for option in place.written]
    ends = getattr(text, "token_ends", None)
    if ends is None or reason_unreadable(options):
        return None
    start = place.start + place.written[place.answer].find(options[place.answer])
    position = tokens_of_span(ends, start, start + 1).start
    token = text[ends[position - 1] if position else 0 : ends[position]]
    return position if reads_as(token, options[place.answer]) else None


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
