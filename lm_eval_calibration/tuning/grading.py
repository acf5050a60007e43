"""The model's own answers to the questions, right or wrong, kept in a file so that they are asked for once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.output import write_whole
from lm_eval_calibration.tuning.questions import Question

FILE = "graded.jsonl"


class Graded(NamedTuple):
    """A question and the model's answer to it.

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


def grade(lm: Any, questions: Sequence[Question]) -> list[Graded]:
    """Ask the model every question; under ``accelerate launch`` each process asks its share."""
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from lm_eval.api.instance import Instance

    from lm_eval_calibration.scoring import token_scores

    state = PartialState()
    mine = list(range(state.process_index, len(questions), state.num_processes))
    requests = [
        Instance("loglikelihood", {}, choice, index, metadata=(questions[i].task, questions[i].doc_id, 1))
        for i in mine
        for index, choice in enumerate(questions[i].choices)
    ]
    scores = iter(token_scores(lm, requests))
    found = [(i, tuple(next(scores)[0] for _ in questions[i].choices)) for i in mine]
    if state.num_processes > 1:
        found = gather_object(found)
    return [Graded(questions[i], log_likelihoods) for i, log_likelihoods in sorted(found)]


def check(graded: Sequence[Graded]) -> None:
    """Refuse answers from which nothing can be learned.

    Raises:
        UserError: all right or all wrong, or too few to hold some out.
    """
    for name, part in (("learned from", False), ("held out", True)):
        correct = [g.correct for g in graded if g.question.held_out == part]
        if len(correct) < 2 or len(set(correct)) < 2:
            what = {(): "there are none", (0,): "all are wrong", (1,): "all are right"}[tuple(sorted(set(correct)))]
            raise UserError(
                f"of the {len(correct)} answers that are {name}, {what}: the model can't learn from these which of its "
                "answers are right; take more docs or another task"
            )


def write(path: Path, settings: Mapping[str, Any], graded: Iterable[Graded]) -> None:
    """Keep the grades; no text of a doc is in the file."""
    lines = [json.dumps({"graded": settings})]
    for g in graded:
        q = g.question
        line = {"task": q.task, "doc_id": q.doc_id, "content": q.content, "log_likelihoods": g.log_likelihoods}
        lines.append(json.dumps(line))
    content = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != content:  # a full disk is no matter if it is there
        write_whole(path, content)


def read(path: Path, settings: Mapping[str, Any], questions: Sequence[Question]) -> list[Graded]:
    """Return the grades of these questions that were kept before; other questions may have grades there, too.

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
        kept = {(line["task"], line["doc_id"], line["content"]): tuple(line["log_likelihoods"]) for line in lines}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no grades: {error!r}") from error
    for name, value in settings.items():
        if found.get(name) != value:
            raise UserError(f"{path} was graded with {name} {found.get(name)!r}, not {value!r}")
    missing = [q for q in questions if (q.task, q.doc_id, q.content) not in kept]
    if missing:
        raise UserError(f"{path} has no grade of doc {missing[0].doc_id} of {missing[0].task} as it is now")
    return [Graded(q, kept[q.task, q.doc_id, q.content]) for q in questions]
