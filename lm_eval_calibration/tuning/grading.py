"""The model's own answers to the questions, right or wrong, kept in a file so that the model answers only once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import jsonl
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.tuning.questions import Answer, AnyQuestion, ChoiceQuestion, OpenQuestion

FILE = "graded.jsonl"

HARNESS_SEED = 1234
"""The seed that a run of the harness sets at its start."""


def grade(lm: Any, questions: Sequence[AnyQuestion]) -> list[Answer]:
    """Return the model's answer to every question; under ``accelerate launch`` each process answers its share."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    own = range(state.process_index, len(questions), state.num_processes)
    of_choices = [i for i in own if isinstance(questions[i], ChoiceQuestion)]
    open_ones = [i for i in own if isinstance(questions[i], OpenQuestion)]
    outputs = list(zip(of_choices, _log_likelihoods(lm, [questions[i] for i in of_choices]), strict=True))
    generated = _generate(lm, [questions[i] for i in open_ones])
    outputs += zip(open_ones, _score([questions[i] for i in open_ones], generated), strict=True)
    if state.num_processes > 1:
        outputs = gather_object(outputs)
    return [questions[i].answer(**output) for i, output in sorted(outputs, key=lambda pair: pair[0])]


def _log_likelihoods(lm: Any, questions: Sequence[Any]) -> list[dict[str, Any]]:
    """Log-likelihoods of the choices of each question."""
    from lm_eval.api.instance import Instance

    from lm_eval_calibration.backends import token_scores

    requests = [
        Instance("loglikelihood", {}, choice, index, metadata=(question.task, question.doc_id, 1))
        for question in questions
        for index, choice in enumerate(question.choices)
    ]
    scores = iter(token_scores(lm, requests) if requests else ())
    return [{"log_likelihoods": tuple(next(scores)[0] for _ in question.choices)} for question in questions]


def _generate(lm: Any, questions: Sequence[Any]) -> list[str]:
    """The text that the model writes to each question."""
    from transformers import set_seed

    from lm_eval_calibration.backends import generated_texts

    set_seed(HARNESS_SEED)  # for answers that are sampled
    requests = [question.request for question in questions]
    return [str(text) for text in (generated_texts(lm, requests) if requests else ())]


def _score(questions: Sequence[Any], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Texts with whether they are right by the tasks' own metrics."""
    by_task: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        by_task.setdefault(question.task, []).append(index)
    correct: dict[int, int | None] = {}
    for indices in by_task.values():
        requests = [questions[i].request for i in indices]
        correct |= zip(
            indices, questions[indices[0]].source.outcomes(requests, [texts[i] for i in indices]), strict=True
        )
    return [{"text": text, "correct": correct[index]} for index, text in enumerate(texts)]


def check_learnable(answers: Sequence[Answer]) -> None:
    """Refuse answers from which nothing can be learned.

    Raises:
        UserError: all right or all wrong, or too few to hold some out.
    """
    for name, held_out in (("learned from", False), ("held out", True)):
        correct = [int(answer.correct == 1) for answer in answers if answer.question.held_out == held_out]
        if len(correct) < 2 or len(set(correct)) < 2:
            what = {(): "there are none", (0,): "all are wrong", (1,): "all are right"}[tuple(sorted(set(correct)))]
            raise UserError(
                f"of the {len(correct)} answers that are {name}, {what}: the model can't learn from these which of its "
                "answers are right; take more docs or another task"
            )


def write(path: Path, settings: Mapping[str, Any], answers: Iterable[Answer]) -> None:
    """Keep the answers; no text of a doc is in the file, but what the model wrote is."""
    lines: list[dict[str, Any]] = [{"graded": settings}]
    for answer in answers:
        q = answer.question
        lines.append(
            {"task": q.task, "doc_id": q.doc_id, "content": q.content, "asked": q.request_hash, **answer.logged}
        )
    content = "".join(f"{json.dumps(line)}\n" for line in lines)  # log-likelihoods may be -inf, null to orjson
    if not path.exists() or path.read_text(encoding="utf-8") != content:  # a full disk is no matter if it is there
        write_whole(path, content)


def read(path: Path, settings: Mapping[str, Any], questions: Sequence[AnyQuestion]) -> list[Answer]:
    """Return the answers to these questions that were kept before; the file may hold answers to other questions too.

    Generated answers are scored again, by the metric that their task has now.

    Args:
        path: of the file.
        settings: what the answers depend on beside the questions.
        questions: whose answers are wanted.

    Raises:
        UserError: naming the file and what in it is of another model, task or doc.
    """
    try:
        head, *lines = jsonl.read(path)
        settings_then = head["graded"]
        kept = {
            (line["task"], line["doc_id"], line["asked"]): line["text"] if "text" in line else line["log_likelihoods"]
            for line in lines
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no grades: {error!r}") from error
    for name, value in settings.items():
        if settings_then.get(name) != value:
            raise UserError(f"{path} was graded with {name} {settings_then.get(name)!r}, not {value!r}")
    keys = [(question.task, question.doc_id, question.request_hash) for question in questions]
    for task, doc_id, _ in (key for key in keys if key not in kept):
        raise UserError(f"{path} has no grade of doc {doc_id} of {task} with the prompt that it has now")
    outputs = [kept[key] for key in keys]
    texts = [(q, text) for q, text in zip(questions, outputs, strict=True) if isinstance(q, OpenQuestion)]
    scored = iter(_score([question for question, _ in texts], [text for _, text in texts]))
    return [
        q.answer(**next(scored)) if isinstance(q, OpenQuestion) else q.answer(tuple(output))
        for q, output in zip(questions, outputs, strict=True)
    ]
