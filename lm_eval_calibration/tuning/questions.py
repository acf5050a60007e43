"""Docs as questions to the model: the requests for an answer and for P(true) of it, as the harness has them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import cluster_of
from lm_eval_calibration.tasks.docs import gold_index
from lm_eval_calibration.tasks.generation import GenerationTask
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager
from lm_eval_calibration.tuning.settings import GradingSettings
from lm_eval_calibration.tuning.splitting import Hashes, Split, content_hash, split_across, split_within

SUFFIX = "_calibration"

NO_CHOICE = -1
"""Index of the gold choice where there are no choices."""

Pairs = tuple[tuple[str, str], ...]
"""Contexts, each with a continuation."""


@dataclass(frozen=True)
class Question:
    """A doc to learn from.

    Attributes:
        task: name of the task.
        doc_id: its number in its split.
        content: hash of its content.
        held_out: whether it is for validation.
    """

    task: str
    doc_id: int
    content: str
    held_out: bool


class Answer(NamedTuple):
    """The model's own answer to a question.

    Attributes:
        question: the question.
        pair: context and answer.
        query: contexts and continuations of the query about the answer.
        correct: 1 or 0; None where the task's own metric is between.
        logged: what is kept in the file of answers.
    """

    question: "AnyQuestion"
    pair: tuple[str, str]
    query: Pairs
    correct: int | None
    logged: dict[str, Any]


@dataclass(frozen=True)
class ChoiceQuestion(Question):
    """A doc whose answer is one of several choices.

    Attributes:
        choices: context and continuation of each choice.
        queries: for each choice, contexts and continuations of the query about it.
        gold: index of the gold choice.
    """

    choices: Pairs
    queries: tuple[Pairs, ...]
    gold: int

    @property
    def request_hash(self) -> str:
        """Hash of the requests, on which the model's answer depends."""
        return _hash(self.choices)

    def answer(self, log_likelihoods: Sequence[float]) -> Answer:
        """Return the answer: the most probable choice; the first of equals, as the harness counts."""
        best = int(np.argmax(log_likelihoods))
        logged = {"log_likelihoods": log_likelihoods}
        return Answer(self, self.choices[best], self.queries[best], int(best == self.gold), logged)


@dataclass(frozen=True)
class OpenQuestion(Question):
    """A doc to which the model writes an answer.

    Attributes:
        request: the task's own request for the answer.
        source: the task, which scores answers and makes the query about them.
    """

    request: Instance
    source: GenerationTask
    choices: ClassVar[Pairs] = ()
    gold: ClassVar[int] = NO_CHOICE

    @property
    def request_hash(self) -> str:
        """Hash of the request, generation settings included, on which the model's answer depends."""
        return _hash(self.request.args)

    def answer(self, text: str, correct: int | None) -> Answer:
        """Return a generated text as the answer."""
        query = _pairs(self.request.follow_ups(text))
        return Answer(self, (str(self.request.args[0]), text), query, correct, {"text": text, "correct": correct})


AnyQuestion = ChoiceQuestion | OpenQuestion


class TaskQuestions(NamedTuple):
    """What is learned from one task.

    Attributes:
        task: its name, that of the calibrated task.
        split_name: name of the split to learn from.
        split: numbers of the docs.
        questions: those to grade.
        n_broken: docs without a sound gold label, which are left out.
    """

    task: str
    split_name: str
    split: Split
    questions: tuple[AnyQuestion, ...]
    n_broken: int


def load_questions(grading: GradingSettings, query: str, lm: Any) -> list[TaskQuestions]:
    """Load the tasks, split their docs and build the prompts.

    Raises:
        UserError: naming task and reason: unknown, nothing that could be right or wrong, several answers to a doc, no
            training split, no gold labels, programs that may not be run.
    """
    names = [name.removesuffix(SUFFIX) + SUFFIX for name in grading.tasks]
    options = {"calibration": {"p_true": query, "verbalized": False}}
    loaded = CalibrationTaskManager(include_path=grading.include_path, metadata=options).load(names)["tasks"]
    return [_of_task(task, grading, lm) for task in loaded.values()]


def _of_task(task: Any, grading: GradingSettings, lm: Any) -> TaskQuestions:
    _check_gradable(task, grading)
    if grading.num_fewshot is not None and task.get_config("num_fewshot") != 0:  # as a run of the harness does
        task.set_config(key="num_fewshot", value=grading.num_fewshot)
    task.set_fewshot_seed(seed=1234)  # likewise
    name, split = _split(task, grading)
    questions, n_broken = _questions(task, split, grading, lm)
    if not questions:
        raise UserError(
            f"{task.task_name}: no doc of its split {name!r} that could be learned from has a sound gold label"
            if n_broken
            else f"{task.task_name}: its split {name!r} has no doc to learn from"
        )
    if not split.test:
        raise UserError(f"{task.task_name}: no doc is left to test on: give a smaller --fit-fraction")
    return TaskQuestions(task.task_name, name, split, questions, n_broken)


def _check_gradable(task: Any, grading: GradingSettings) -> None:
    if task.config.output_type not in ("multiple_choice", "generate_until"):
        raise UserError(f"{task.task_name}: tune grades answers, and a task of {task.config.output_type} has none")
    if getattr(task, "UNSAFE_CODE", False) and not grading.confirm_run_unsafe_code:
        raise UserError(
            f"{task.task_name} grades answers by running the programs in them: add --confirm_run_unsafe_code"
        )
    if isinstance(task, GenerationTask) and task.config.repeats > 1:
        raise UserError(
            f"{task.task_name} has {task.config.repeats} answers to each doc (repeats), and tune grades one"
        )


def _split(task: Any, grading: GradingSettings) -> tuple[str, Split]:
    """Return the name of the split to learn from, whose docs the task's requests are then built of, and the docs."""
    evaluated = _hashes(task)
    if grading.fit_fraction is not None:
        split = split_within(evaluated, grading.fit_fraction, grading.limit)
        return str(task.config.test_split or task.config.validation_split), split
    if not task.has_training_docs():
        raise UserError(
            f"{task.task_name} has no training split: --fit-fraction 0.5 learns from half of the docs that it "
            "evaluates and tests on the other half"
        )
    task.config.test_split = task.config.training_split
    return str(task.config.training_split), split_across(_hashes(task), evaluated, grading.limit)


def _hashes(task: Any) -> Hashes:
    contents = [_content(task, doc) for doc in task.eval_docs]
    return Hashes(contents, _sources(task, contents))


def _content(task: Any, doc: Any) -> str:
    # Several inputs are the choices of their task; the text that follows them is its target.
    prompt = task.doc_to_target(doc) if task.multiple_input else task.doc_to_text(doc)
    return content_hash(prompt, () if isinstance(task, GenerationTask) else task.doc_to_choice(doc))


def _sources(task: Any, contents: Sequence[str]) -> list[str]:
    """Hash of what each doc was drawn with: its cluster (option ``cluster``), else what it was made from.

    That is the doc itself, or a program each of whose lines is in the next one's prompt. (Docs of
    ``line_completion.lines`` are known by ``before``; ``task_id`` alone may be the same for all docs.)
    """
    if field := task.options.cluster:
        return [content_hash(cluster_of(doc, field), ()) for doc in task.eval_docs]
    return [
        content_hash(doc["task_id"], ()) if {"task_id", "before"} <= doc.keys() else content
        for doc, content in zip(task.eval_docs, contents, strict=True)
    ]


def _questions(task: Any, split: Split, grading: GradingSettings, lm: Any) -> tuple[tuple[AnyQuestion, ...], int]:
    """Return the questions to grade, and how many docs have no sound gold label."""
    doc_ids = sorted({*split.fit, *split.validation})
    if not doc_ids:
        return (), 0
    task.build_all_requests(
        samples=doc_ids,
        apply_chat_template=grading.apply_chat_template,
        chat_template=lm.apply_chat_template if grading.apply_chat_template else None,
        fewshot_as_multiturn=grading.apply_chat_template,  # as a run of the harness does
        tokenizer_name=lm.tokenizer_name if grading.apply_chat_template else "",
    )
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(doc_ids[instance.doc_id], []).append(instance)
    held_out = set(split.validation)
    questions: list[AnyQuestion] = []
    for doc_id, instances in by_doc.items():
        doc = instances[0].doc
        identity = task.task_name, doc_id, _content(task, doc), doc_id in held_out
        if isinstance(task, GenerationTask):
            questions.append(OpenQuestion(*identity, instances[0], task))
            continue
        choices = task.doc_to_choice(doc)
        gold = gold_index(task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc), choices)
        if gold is not None:
            by_choice = [
                [i for i in instances if getattr(i, "added_by", None) == ("p_true", k)] for k in range(len(choices))
            ]
            queries = tuple(_pairs(of_choice) for of_choice in by_choice)
            questions.append(ChoiceQuestion(*identity, _pairs(instances[: len(choices)]), queries, gold))
    return tuple(questions), len(by_doc) - len(questions)


def _hash(arguments: object) -> str:
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, default=str).encode()).hexdigest()


def _pairs(instances: Sequence[Any]) -> Pairs:
    return tuple((str(instance.args[0]), str(instance.args[1])) for instance in instances)


def docs_to_test_on(task: TaskQuestions, limit: int | None) -> list[int]:
    """Return numbers of docs to test on: at most ``limit``, drawn at random; all where it is None."""
    docs: list[int] = np.random.default_rng(0).permutation(task.split.test)[:limit].tolist()
    return sorted(docs)
