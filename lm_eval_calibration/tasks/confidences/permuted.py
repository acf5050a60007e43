"""Confidence over several orders of the choices: part of a model's confidence is only the letter A."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.metrics import answer_changes, position_spread
from lm_eval_calibration.tasks.confidences.choice_slots import (
    Slots,
    are_labels,
    find_slots,
    in_own_order,
    replace_last,
    rotations,
)
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, ScoredChoices
from lm_eval_calibration.tasks.confidences.option import whole_number
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource


class Permuted(ConfidenceSource):
    """Choice probabilities averaged over the orders in which the choices were shown."""

    name = "permuted"
    tables = ("choices",)
    option = whole_number("permute", 0, 100)
    means: ClassVar = {"acc_permuted": True, "position_spread": False, "answer_changes": False}

    def requested_means(self, options: Any) -> Mapping[str, bool]:
        """Return its means; one order shows neither spread nor changes."""
        return dict(list(self.means.items())[: 1 if options["permute"] == 1 else 3])

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the records with probabilities averaged over the orders of the choices."""
        return (record.permuted() for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the orders of the choices were recorded."""
        return record.rotations is not None

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return what several orders show of a doc."""
        orders = [record.rotated_probs]
        values = {
            "acc_permuted": lambda: float(record.permuted().correct or 0),
            "position_spread": lambda: position_spread(orders),
            "answer_changes": lambda: answer_changes(orders) if len(record.log_likelihoods) > 1 else 0.0,
        }
        return {name: values[name]() for name in self.requested_means(options)}

    def start(self, task: Any, lm: Any, chat_template: Any) -> "Orders | None":
        """Return what shows the choices in several orders; None where their order can't be changed."""
        n_orders = task.options["permute"]
        slots = _slots(task) if n_orders > 1 else None
        return Orders(self.name, n_orders, task, slots) if n_orders == 1 or slots is not None else None


class Orders(Elicitation):
    """Shows the choices of each doc in several orders.

    Args:
        name: of the source.
        n_orders: the doc's own order among them.
        task: the calibrated task.
        slots: where its docs hold the texts of their choices; None for the doc's own order alone.
    """

    def __init__(self, name: str, n_orders: int, task: Any, slots: Slots | None) -> None:
        super().__init__(name, n_orders if slots else None)
        self.task, self.slots, self.n_orders = task, slots, n_orders

    def requests(
        self, doc: dict[str, Any], prompt: Any, choices: Sequence[Any], **options: Any
    ) -> list[tuple[Any, Any]]:
        """Return the requests of the choices in the doc's other orders, each with the order's rotation."""
        from lm_eval_calibration.tasks.docs import doc_hash

        if self.slots is None:
            return []
        n_choices = len(choices)
        if len(self.slots.texts(doc) or ()) != n_choices:
            raise TaskError(
                f"{self.task.location_of(doc)}: permute finds other texts in {self.slots} than the {n_choices} choices",
                ids=self.task.ids_of(doc),
            )
        text = self.task.doc_to_text(doc)
        found: list[tuple[Any, Any]] = []
        for rotation in rotations(doc_hash(doc), self.n_orders, n_choices)[1:]:
            rotated = self.slots.rotated(doc, rotation)
            context = replace_last(prompt, text, self.task.doc_to_text(rotated))
            if context is None:
                raise TaskError(
                    f"{self.task.location_of(doc)}: permute needs the prompt to hold doc_to_text as it is",
                    ids=self.task.ids_of(doc),
                )
            for request in self.task.stock_requests(rotated, context, **options)[:n_choices]:
                request.doc = doc
                found.append((rotation, request))
        return found

    def fields(self, scored: ScoredChoices, replies: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
        """Return the log-likelihoods of the choices under each order, in the doc's own order of choices."""
        from lm_eval_calibration.tasks.docs import usable_log_likelihoods

        orders = {0: scored.log_likelihoods}
        for rotation, answers in sorted(replies.items()):
            orders[rotation] = in_own_order(usable_log_likelihoods(answers), rotation)
        return {"rotations": tuple(orders), "rotated_log_likelihoods": tuple(orders.values())}


def _slots(task: Any) -> Slots | None:
    """Return where the docs hold the texts of their choices; None where their order can't be changed."""
    from lm_eval.api.task import ConfigurableTask

    from lm_eval_calibration.harness.log import logger

    docs = task.eval_docs
    some = [docs[i] for i in range(0, len(docs), max(1, len(docs) // 20))]
    # The harness's own: an error of a task's function on texts that are not its own is no error of the user's.
    to_text, to_choice = partial(ConfigurableTask.doc_to_text, task), partial(ConfigurableTask.doc_to_choice, task)
    found = [] if task.multiple_input else find_slots(some, to_text, to_choice)
    if len(found) == 1:
        logger.info("%s: permute moves the texts in %s", task.task_name, found[0])
        return found[0]
    where = task.calibration.where
    if found:
        fields = " and ".join(map(str, found))
        raise TaskError(f"{where}: the prompts list {fields}: permute can't tell which to move")
    shown = [(to_text(doc), to_choice(doc)) for doc in some]
    are_shown = all(isinstance(text, str) and all(c in text for c in choices) for text, choices in shown)
    if (are_shown and len({tuple(choices) for _, choices in shown}) > 1) or are_labels(shown[0][1]):
        raise TaskError(
            f"{where}: permute can't tell which fields of a doc hold the texts of its choices "
            f"({', '.join(shown[0][1])})"
        )
    logger.warning("%s: its docs list no choices: they keep one order, and there are no order metrics", task.task_name)
    return None


PERMUTED = Permuted()
