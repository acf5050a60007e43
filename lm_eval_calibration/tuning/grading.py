"""The model's own answers to the questions, right or wrong, kept in a file so that they are asked for once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.tuning.questions import OpenQuestion, Question

FILE = "graded.jsonl"

Pair = tuple[str, str]
"""A context and what continues it."""

NO_CHOICE = -1
"""In the place of the right choice's index where answers are written."""

HARNESS_SEED = 1234
"""What a run of the harness sets before it asks."""


class Chosen(NamedTuple):
    """A question and the choice that the model takes.

    Attributes:
        question: what was asked.
        log_likelihoods: of the choices, in nats, summed over tokens.
    """

    question: Question
    log_likelihoods: tuple[float, ...]

    @property
    def answer(self) -> int:
        """Index of the most probable choice; the first of equals, as the harness counts."""
        return int(np.argmax(self.log_likelihoods))

    @property
    def correct(self) -> int:
        """1 if the answer is right, else 0."""
        return int(self.answer == self.question.gold)

    @property
    def answered(self) -> Pair:
        """Context and answer."""
        return self.question.choices[self.answer]

    @property
    def query(self) -> tuple[Pair, ...]:
        """Contexts and continuations of the query about the answer."""
        return self.question.queries[self.answer]

    @property
    def choices(self) -> tuple[Pair, ...]:
        """Context and continuation of each answer that there could be."""
        return self.question.choices

    @property
    def gold(self) -> int:
        """Index of the right choice."""
        return self.question.gold

    @property
    def found(self) -> dict[str, Any]:
        """What is kept in the file."""
        return {"log_likelihoods": self.log_likelihoods}


class Written(NamedTuple):
    """A question and the answer that the model writes.

    Attributes:
        question: what was asked.
        text: the answer, as the harness's generation ends.
        correct: 1 or 0, the task's own metric; None where it says something between.
    """

    question: OpenQuestion
    text: str
    correct: int | None

    @property
    def answered(self) -> Pair:
        """Context and answer."""
        return str(self.question.request.args[0]), self.text

    @property
    def query(self) -> tuple[Pair, ...]:
        """Contexts and continuations of the query about the answer."""
        return self.question.query(self.text)

    @property
    def choices(self) -> tuple[Pair, ...]:
        """None: the answer could be anything."""
        return ()

    @property
    def gold(self) -> int:
        """No choice is the right one."""
        return NO_CHOICE

    @property
    def found(self) -> dict[str, Any]:
        """What is kept in the file; whether the answer is right is for people, and judged anew (see :func:`read`)."""
        return {"text": self.text, "correct": self.correct}


Graded = Chosen | Written


def grade(lm: Any, questions: Sequence[Question | OpenQuestion]) -> list[Graded]:
    """Ask the model every question; under ``accelerate launch`` each process asks its share."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    mine = list(range(state.process_index, len(questions), state.num_processes))
    of_choices, written = ([i for i in mine if isinstance(questions[i], kind)] for kind in (Question, OpenQuestion))
    found: list[tuple[int, tuple[Any, ...]]] = list(
        zip(of_choices, _choose(lm, [questions[i] for i in of_choices]), strict=True)
    )
    found += zip(written, _write(lm, [questions[i] for i in written]), strict=True)
    if state.num_processes > 1:
        found = gather_object(found)
    return [_graded(questions[i], of_question) for i, of_question in sorted(found)]


def _choose(lm: Any, questions: Sequence[Any]) -> list[tuple[float, ...]]:
    """Log-likelihoods of the choices of each question."""
    from lm_eval.api.instance import Instance

    from lm_eval_calibration.backends import token_scores

    requests = [
        Instance("loglikelihood", {}, choice, index, metadata=(question.task, question.doc_id, 1))
        for question in questions
        for index, choice in enumerate(question.choices)
    ]
    scores = iter(token_scores(lm, requests) if requests else ())
    return [tuple(next(scores)[0] for _ in question.choices) for question in questions]


def _write(lm: Any, questions: Sequence[Any]) -> list[tuple[str, int | None]]:
    """The answer to each question, and whether it is right."""
    from transformers import set_seed

    from lm_eval_calibration.backends import generated_texts

    requests = [question.request for question in questions]
    set_seed(HARNESS_SEED)  # of answers that are sampled
    return _judge(questions, [str(text) for text in (generated_texts(lm, requests) if requests else ())])


def _judge(questions: Sequence[Any], texts: Sequence[str]) -> list[tuple[str, int | None]]:
    """The answers, and whether they are right by the tasks' own metrics."""
    of_task: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        of_task.setdefault(question.task, []).append(number)
    correct: dict[int, int | None] = {}
    for numbers in of_task.values():
        asked = [questions[i].request for i in numbers]
        outcomes = questions[numbers[0]].asked_by.outcomes(asked, [texts[i] for i in numbers])
        correct |= zip(numbers, outcomes, strict=True)
    return [(text, correct[number]) for number, text in enumerate(texts)]


def _graded(question: Any, found: Sequence[Any]) -> Graded:
    return Chosen(question, tuple(found)) if isinstance(question, Question) else Written(question, *found)


def right_or_wrong(graded: Sequence[Graded]) -> tuple[list[Graded], int]:
    """Return the answers that are right or wrong, and how many are neither."""
    found = [g for g in graded if g.correct is not None]
    return found, len(graded) - len(found)


def check(graded: Sequence[Graded]) -> None:
    """Refuse answers from which nothing can be learned.

    Raises:
        UserError: all right or all wrong, or too few to hold some out.
    """
    for name, part in (("learned from", False), ("held out", True)):
        correct = [int(g.correct == 1) for g in graded if g.question.held_out == part]
        if len(correct) < 2 or len(set(correct)) < 2:
            what = {(): "there are none", (0,): "all are wrong", (1,): "all are right"}[tuple(sorted(set(correct)))]
            raise UserError(
                f"of the {len(correct)} answers that are {name}, {what}: the model can't learn from these which of its "
                "answers are right; take more docs or another task"
            )


def write(path: Path, settings: Mapping[str, Any], graded: Iterable[Graded]) -> None:
    """Keep the grades; no text of a doc is in the file, but what the model wrote is."""
    lines = [json.dumps({"graded": settings})]
    for g in graded:
        q = g.question
        lines.append(
            json.dumps({"task": q.task, "doc_id": q.doc_id, "content": q.content, "asked": q.asked, **g.found})
        )
    content = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != content:  # a full disk is no matter if it is there
        write_whole(path, content)


def read(path: Path, settings: Mapping[str, Any], questions: Sequence[Question | OpenQuestion]) -> list[Graded]:
    """Return the grades of these questions that were kept before; other questions may have grades there, too.

    Written answers are judged anew, by the metric that their task has now.

    Args:
        path: of the file.
        settings: what the answers depend on beside the questions.
        questions: whose grades are wanted.

    Raises:
        UserError: naming the file and what in it is of another model, task or doc.
    """
    try:
        head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        found = head["graded"]
        kept = {(line["task"], line["doc_id"], line["asked"]): _found(line) for line in lines}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no grades: {error!r}") from error
    for name, value in settings.items():
        if found.get(name) != value:
            raise UserError(f"{path} was graded with {name} {found.get(name)!r}, not {value!r}")
    missing = [q for q in questions if (q.task, q.doc_id, q.asked) not in kept]
    if missing:
        raise UserError(f"{path} has no grade of doc {missing[0].doc_id} of {missing[0].task} as it is asked now")
    of_question = {i: kept[q.task, q.doc_id, q.asked] for i, q in enumerate(questions)}
    written = [i for i, question in enumerate(questions) if isinstance(question, OpenQuestion)]
    of_question |= zip(
        written, _judge([questions[i] for i in written], [of_question[i][0] for i in written]), strict=True
    )
    return [_graded(q, of_question[i]) for i, q in enumerate(questions)]


def _found(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return (line["text"],) if "text" in line else tuple(line["log_likelihoods"])
