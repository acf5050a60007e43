"""A confidence source at work in one run of one task: the requests that it adds, and how their replies are read."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lm_eval_calibration.records import StatedConfidence

Request = tuple[str, tuple[Any, ...]]
"""A request type and the arguments of a request."""


class ScoredChoices(NamedTuple):
    """A doc whose choices were scored.

    Attributes:
        location: task and doc, for an error.
        log_likelihoods: of its choices, in nats.
    """

    location: str
    log_likelihoods: tuple[float, ...]


class Elicitation:
    """What a source adds to the docs of a run: requests, and what it reads in their replies or in an answer.

    Attributes:
        name: of the source.
        n_requests: how many requests question an answer; None where that depends on the answer.
        setting: what its requests depend on; None where it adds none to those of choices. ``--cache_requests`` may
            have kept requests of another one, which are then refused.
    """

    n_requests: int | None = 0

    position_in: Callable[[dict[str, Any], Any], int | None] | None = None
    """Returns the token of a doc's text whose most probable alternatives the record needs; None where none does."""

    def __init__(self, name: str, setting: Any) -> None:
        self.name, self.setting = name, setting

    def requests(
        self, doc: dict[str, Any], prompt: Any, choices: Sequence[Any], **options: Any
    ) -> list[tuple[Any, Any]]:
        """Return the requests that it adds to those of a doc's choices, each with what tells it from the others.

        Args:
            doc: the doc.
            prompt: with few-shot examples.
            choices: the requests of the choices.
            **options: of the task's ``construct_requests``.
        """
        return []

    def fields(self, scored: ScoredChoices, replies: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
        """Return fields of the doc's record.

        Args:
            scored: the doc.
            replies: to its requests, by what tells these from each other.
        """
        return {}

    def about(self, context: Any, answer: str) -> list[Request]:
        """Return the requests that question an answer: ``n_requests``.

        Args:
            context: the prompt that was answered.
            answer: as it continues the prompt; where it was generated, a
                :class:`~lm_eval_calibration.backends.GeneratedText`.
        """
        return []

    def about_answer(self, request: Any, text: Any) -> list[Request]:
        """Return the requests that question what was generated.

        Args:
            request: the one for the answer.
            text: that was generated, a :class:`~lm_eval_calibration.backends.GeneratedText`.
        """
        return self.about(request.args[0], text)

    def confidence_of(self, text: Any, answer: Any, replies: Sequence[Any]) -> StatedConfidence | None:
        """Return the confidence of a generated answer; None where this source states none.

        Args:
            text: as it was generated, a :class:`~lm_eval_calibration.backends.GeneratedText`.
            answer: what the scored filter makes of it.
            replies: to the requests that question it.
        """
        return None

    def see_answers(self, requests: Sequence[Any]) -> None:
        """Look at all answers of a run once they are there, before the records are made.

        Args:
            requests: those for the answers; ``resps`` of each are its texts.
        """

    def fields_of_answer(self, request: Any, replies: Sequence[Any]) -> dict[str, Any]:
        """Return fields of the record of a doc whose answer was generated.

        Args:
            request: the one for the answer.
            replies: to the requests that question it.
        """
        return {}

    def logged(self, replies: Sequence[Any]) -> dict[str, str]:
        """Return what stands in the log of samples beside the record."""
        return {}


ANSWER = "answer"
"""What tells the requests about a doc's answer from those about each of its choices."""

_TO_BE_CHOSEN = " (the answer)"
"""Stands for the answer in a request until it is known, as ``--write_out`` shows it."""


class FollowUpElicitation(Elicitation):
    """Questions about an answer.

    Of a doc with choices they wait for the answer, where they are of the type that scores the choices and the backend
    lets them: then there is one call for both. Else they are put about each choice, as if it were the model's answer;
    so they are outside a run, for training.

    Args:
        name: of the source.
        setting: what its requests depend on.
        lm: the run's backend; None outside a run.
    """

    n_requests = 1

    def __init__(self, name: str, setting: Any, lm: Any = None) -> None:
        from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, can_wait

        super().__init__(name, setting)
        self.can_wait = can_wait(lm, SCORING_REQUEST_TYPE)

    def read(self, replies: Sequence[Any]) -> StatedConfidence:
        """Return the confidence that the replies state."""
        raise NotImplementedError

    def confidence_of(self, text: Any, answer: Any, replies: Sequence[Any]) -> StatedConfidence:
        """Return the confidence that the replies state."""
        return self.read(replies)

    def requests(
        self, doc: dict[str, Any], prompt: Any, choices: Sequence[Any], **options: Any
    ) -> list[tuple[Any, Any]]:
        """Return the requests that question the answer, or every choice."""
        from lm_eval.api.instance import Instance

        from lm_eval_calibration.backends import SCORING_REQUEST_TYPE

        found: list[tuple[Any, Any, list[Request]]]
        about_it = self.about(choices[0].args[0], _TO_BE_CHOSEN)
        if self.can_wait and all(request_type == SCORING_REQUEST_TYPE for request_type, _ in about_it):
            found = [(ANSWER, choices[0], about_it)]
        else:
            found = [(number, choice, self.about(*choice.args[:2])) for number, choice in enumerate(choices)]
        return [
            (key, Instance(request_type, doc, arguments, 0, choice.metadata))
            for key, choice, about in found
            for request_type, arguments in about
        ]

    def wait(self, requests: Sequence[Any], choices: Sequence[Any]) -> None:
        """Let a doc's requests about its answer wait for the scores of its choices."""
        from lm_eval_calibration.backends import WaitsFor, let_wait
        from lm_eval_calibration.tasks.docs import answer_of, usable_log_likelihoods

        def arguments(number: int, scores: Sequence[Any]) -> tuple[Any, ...]:
            return self.about(*choices[answer_of(usable_log_likelihoods(scores))].args[:2])[number][1]

        for number, request in enumerate(requests):
            let_wait(request, WaitsFor(choices, partial(arguments, number)))
