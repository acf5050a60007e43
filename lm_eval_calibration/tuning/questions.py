"""Docs as the harness asks them: the requests for an answer, and the query about it, as the judging run has them."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tasks.docs import gold_index
from lm_eval_calibration.tasks.generation import GenerationTask
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager
from lm_eval_calibration.tuning.settings import Grading
from lm_eval_calibration.tuning.splitting import Parts, content_hash, split_one, split_two

SUFFIX = "_calibration"


class Question(NamedTuple):
    """A doc to learn from, whose answer is one of several choices.

    Attributes:
        task: name of the task.
        doc_id: its number in its split.
        content: hash of what it asks.
        held_out: whether it is for validation.
        choices: context and continuation of each choice.
        queries: for each choice, contexts and continuations of the query about it.
        gold: index of the right choice.
    """

    task: str
    doc_id: int
    content: str
    held_out: bool
    choices: tuple[tuple[str, str], ...]
    queries: tuple[tuple[tuple[str, str], ...], ...]
    gold: int

    @property
    def asked(self) -> str:
        """Hash of what the model is asked, on which its answer depends."""
        return _hash(self.choices)


class OpenQuestion(NamedTuple):
    """A doc to learn from, whose answer the model writes.

    Attributes:
        task: name of the task.
        doc_id: its number in its split.
        content: hash of what it asks.
        held_out: whether it is for validation.
        request: the task's own request for the answer.
        asked_by: the task, which judges answers and puts the query behind them.
    """

    task: str
    doc_id: int
    content: str
    held_out: bool
    request: Instance
    asked_by: GenerationTask

    @property
    def asked(self) -> str:
        """Hash of what the model is asked, and how it is to write, on which its answer depends."""
        return _hash(self.request.args)

    def query(self, text: str) -> tuple[tuple[str, str], ...]:
        """Contexts and continuations of the query about an answer."""
        return _pairs(self.request.follow_ups(text))


class TaskQuestions(NamedTuple):
    """What is learned from one task.

    Attributes:
        task: its name, that of the calibrated task.
        split: name of the split that is learned from.
        parts: numbers of the docs.
        questions: those to grade.
        n_broken: docs without a sound gold label, which are left out.
    """

    task: str
    split: str
    parts: Parts
    questions: tuple[Question | OpenQuestion, ...]
    n_broken: int


def ask(grading: Grading, query: str, lm: Any) -> list[TaskQuestions]:
    """Load the tasks, split their docs and build the prompts.

    Raises:
        UserError: naming task and reason: unknown, nothing that could be right or wrong, several answers to a doc, no
            training split, no gold labels, programs that may not be run.
    """
    names = [name.removesuffix(SUFFIX) + SUFFIX for name in grading.tasks]
    options = {"calibration": {"p_true": query, "verbalized": False}}
    loaded = CalibrationTaskManager(include_path=grading.include_path, metadata=options).load(names)["tasks"]
    return [_ask(task, grading, lm) for task in loaded.values()]


def _ask(task: Any, grading: Grading, lm: Any) -> TaskQuestions:
    if task.config.output_type not in ("multiple_choice", "generate_until"):
        raise UserError(f"{task.task_name}: tune grades answers, and a task of {task.config.output_type} has none")
    if getattr(task, "UNSAFE_CODE", False) and not grading.confirm_run_unsafe_code:
        raise UserError(
            f"{task.task_name} judges answers by running the programs in them: add --confirm_run_unsafe_code"
        )
    if isinstance(task, GenerationTask) and task.config.repeats > 1:
        raise UserError(
            f"{task.task_name} has {task.config.repeats} answers written to each doc (repeats), and tune grades one"
        )
    if grading.num_fewshot is not None and task.get_config("num_fewshot") != 0:  # as a run of the harness does
        task.set_config(key="num_fewshot", value=grading.num_fewshot)
    task.set_fewshot_seed(seed=1234)  # likewise
    evaluated = _contents(task)
    if grading.fit_fraction is not None:
        split = str(task.config.test_split or task.config.validation_split)
        parts = split_one(evaluated, _sources(task, evaluated), grading.fit_fraction, grading.limit)
    else:
        if not task.has_training_docs():
            raise UserError(
                f"{task.task_name} has no training split: --fit-fraction 0.5 learns from half of the docs that it "
                "evaluates and judges the other half"
            )
        split = str(task.config.training_split)
        task.config.test_split = split  # its docs are then what requests are built of
        contents = _contents(task)
        parts = split_two(contents, evaluated, grading.limit)
    questions, n_broken = _questions(task, parts, grading, lm)
    if not questions:
        raise UserError(
            f"{task.task_name}: no doc of its split {split!r} that could be learned from has a sound gold label"
            if n_broken
            else f"{task.task_name}: its split {split!r} has no doc to learn from"
        )
    if not parts.judged:
        raise UserError(f"{task.task_name}: no doc is left to judge: give a smaller --fit-fraction")
    return TaskQuestions(task.task_name, split, parts, questions, n_broken)


def _contents(task: Any) -> list[str]:
    return [content_hash(_text(task, doc), _choices(task, doc)) for doc in task.eval_docs]


def _sources(task: Any, contents: Sequence[str]) -> list[str]:
    """Hash of what each doc was made from: itself, or a program each of whose lines is in the next one's prompt.

    (Docs of ``line_completion.lines`` are known by ``before``; ``task_id`` alone may be the same for all docs.)
    """
    return [
        content_hash(doc["task_id"], ()) if {"task_id", "before"} <= doc.keys() else content
        for doc, content in zip(task.eval_docs, contents, strict=True)
    ]


def _choices(task: Any, doc: Any) -> Sequence[str]:
    if isinstance(task, GenerationTask):
        return ()
    choices: Sequence[str] = task.doc_to_choice(doc)
    return choices


def _text(task: Any, doc: Any) -> object:
    # Several inputs stand among the choices; what is said after them is the target.
    return task.doc_to_target(doc) if task.multiple_input else task.doc_to_text(doc)


def _questions(task: Any, parts: Parts, grading: Grading, lm: Any) -> tuple[tuple[Question | OpenQuestion, ...], int]:
    """Return those to grade, and how many docs have no sound gold label."""
    chosen = sorted({*parts.fit, *parts.validation})
    if not chosen:
        return (), 0
    task.build_all_requests(
        samples=chosen,
        apply_chat_template=grading.apply_chat_template,
        chat_template=lm.apply_chat_template if grading.apply_chat_template else None,
        fewshot_as_multiturn=grading.apply_chat_template,  # as a run of the harness does
        tokenizer_name=lm.tokenizer_name if grading.apply_chat_template else "",
    )
    of_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        of_doc.setdefault(chosen[instance.doc_id], []).append(instance)
    found: list[Question | OpenQuestion] = []
    held_out = set(parts.validation)
    for doc_id, instances in of_doc.items():
        content = content_hash(_text(task, instances[0].doc), _choices(task, instances[0].doc))
        which = task.task_name, doc_id, content, doc_id in held_out
        if isinstance(task, GenerationTask):
            found.append(OpenQuestion(*which, instances[0], task))
        elif (question := _question(task, which, instances)) is not None:
            found.append(question)
    return tuple(found), len(of_doc) - len(found)


def _question(task: Any, which: tuple[str, int, str, bool], instances: Sequence[Any]) -> Question | None:
    doc = instances[0].doc
    texts = task.doc_to_choice(doc)
    gold = gold_index(task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc), texts)
    if gold is None:
        return None
    queries = tuple(
        _pairs([i for i in instances if getattr(i, "added_by", None) == ("p_true", number)])
        for number in range(len(texts))
    )
    return Question(*which, _pairs(instances[: len(texts)]), queries, gold)


def _hash(asked: object) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _pairs(instances: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """Context and continuation of requests."""
    return tuple((str(instance.args[0]), str(instance.args[1])) for instance in instances)


def judged_samples(asked: Sequence[TaskQuestions], names: Sequence[str], limit: int | None) -> dict[str, list[int]]:
    """Return what the harness's ``--samples`` takes: the judged docs of each task, under each of these suffixes.

    Args:
        asked: what was learned from.
        names: suffixes of the names of the tasks that judge.
        limit: docs of each task at most, drawn at random; all where None.
    """
    drawn = {
        task.task.removesuffix(SUFFIX): sorted(np.random.default_rng(0).permutation(task.parts.judged)[:limit].tolist())
        for task in asked
    }
    return {task + name: docs for task, docs in drawn.items() for name in names}
