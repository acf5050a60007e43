"""A multiple-choice task whose answers are written: the model names a choice, as chat-only servers let it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.backends import TokenScores
from lm_eval_calibration.backends.thinking import reason_for_thinking
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.records import GenerationRecord
from lm_eval_calibration.tasks.answer_spans import UNKNOWN, LocatedAnswer
from lm_eval_calibration.tasks.confidences.choice_slots import are_labels
from lm_eval_calibration.tasks.confidences.follow_up import AFTER_A_THOUGHT, ONE_LINE, last_words
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.docs import bad_choices, gold_index, problem_of_choices
from lm_eval_calibration.tasks.generated_answers import GeneratedAnswerTask


class WrittenChoiceTask(GeneratedAnswerTask):
    """The docs of a multiple-choice task, each answered by the letter of a choice.

    A prompt is the stock task's, after one sentence about the form of the reply; where it lists no choices, they are
    listed under letters. ``acc`` is the share of docs whose reply names the right choice: this is not the stock
    task's accuracy, which compares probabilities. A reply that can't be read is wrong.
    """

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        self._thinks = False
        if self.multiple_input:
            raise TaskError(f"{self.calibration.where}: a doc of several inputs can't be answered by a letter")

    def _problem(self, doc: dict[str, Any], *, labels_too: bool) -> str | None:
        return problem_of_choices(self, doc, labels_too=labels_too)

    def _gold_texts(self) -> Sequence[str]:
        choices: Sequence[str] = super().doc_to_choice(self.task_docs[0])
        return choices

    def _prepare(self, lm: Any) -> None:
        """Get ready for a run; a model that thinks first has room to, unless the run sets other limits."""
        super()._prepare(lm)
        self._thinks = bool(reason_for_thinking(lm, self._chat_template))
        if self._thinks and self.config.generation_kwargs == ONE_LINE:
            self.config.generation_kwargs = dict(AFTER_A_THOUGHT)

    def _question(self, doc: Any, doc_to_text: Any) -> Any:
        """Return the stock task's prompt with what to reply before it, and the choices in it."""
        text, choices = super()._question(doc, doc_to_text), super().doc_to_choice(doc)
        if not isinstance(text, str) or bad_choices(choices):
            return text
        labels = _labels(choices)
        if not are_labels(choices):
            listed = "\n".join(f"{label}. {choice}" for label, choice in zip(labels, choices, strict=True))
            text = f"{text}\n{listed}\nAnswer:"
        shown = " or ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))
        if self._form is not None:
            return f"Choose one answer: {shown}.\n\n{text}"
        return f"Choose one answer. Reply with {shown} and nothing else.\n\n{text}"

    def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
        """Return what a reply may be: the label of each choice."""
        choices = super().doc_to_choice(doc, doc_to_choice)
        return choices if bad_choices(choices) else _labels(choices)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """Return the gold choice's index, or the doc's own target where that is no choice."""
        target = super().doc_to_target(doc, doc_to_target)
        index = gold_index(target, super().doc_to_choice(doc))
        return target if index is None else index

    def _stock_results(self, doc: dict[str, Any], answer: Any) -> dict[str, Any]:
        labels = self.doc_to_choice(doc)
        gold = gold_index(self.doc_to_target(doc), labels)
        return {"acc": float(gold is not None and self._named(doc, answer) == labels[gold])}

    def locate(self, doc: dict[str, Any], text: str, answer: Any = UNKNOWN) -> LocatedAnswer:
        """Return where in a reply the label of a choice stands."""
        answer = text if answer is UNKNOWN else answer  # the filter changes nothing
        label = self._named(doc, answer)
        if label is None:
            return LocatedAnswer(answer, None, is_found=False)
        # The last line is the reply, after "Answer:"; the label is the first thing in it but for a bracket.
        reply = answer.strip().removeprefix("Answer:").strip()
        start = text.index(label, text.rindex(reply))
        return LocatedAnswer(label, (start, start + len(label)), is_found=True)

    def _is_equal(self, doc: dict[str, Any], answer: Any, other: Any) -> bool:
        return answer == other or self._named(doc, answer) == self._named(doc, other) is not None

    def _named(self, doc: dict[str, Any], answer: str) -> str | None:
        """Return the label that a reply names: alone, in brackets or with a stop, or as the choice's line is shown."""
        reply = (last_words(answer) if self._thinks else answer).strip().removeprefix("Answer:").strip()
        lines = [line.strip().removesuffix(".") for line in self.doc_to_text(doc).splitlines()]
        for label in self.doc_to_choice(doc):
            bare = rf"\(?{re.escape(label)}[).:]?"
            if re.fullmatch(bare, reply) or (reply.removesuffix(".") in lines and re.match(rf"{bare}\s", reply)):
                return str(label)
        return None

    def _answer_record(
        self, doc: dict[str, Any], request: Instance, stock: Mapping[str, Any], scores: TokenScores | None
    ) -> GenerationRecord:
        record = super()._answer_record(doc, request, stock, scores)
        if self._named(doc, request.filtered_resps[self.scored_filter].plain()) is None:
            undefined = {source.name for source in self.sources if source.needs_named_choice}
            record = replace(
                record,
                stated={
                    name: replace(stated, confidence=None) if name in undefined else stated
                    for name, stated in record.stated.items()
                },
            )
        if gold_index(self.doc_to_target(doc), self.doc_to_choice(doc)) is None:
            record = replace(record, generation=replace(record.generation, correct=None))  # a broken label
        return record


def _labels(choices: Sequence[str]) -> list[str]:
    if are_labels(choices):
        return [re.sub(r"[\W_]", "", choice) for choice in choices]
    return [*ascii_uppercase[: len(choices)]] if len(choices) <= 26 else [str(i + 1) for i in range(len(choices))]
