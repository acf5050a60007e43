"""The requests that show a doc's choices in other orders."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.tasks.confidences.choice_slots import Slots, in_own_order, replace_last, rotations
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, ScoredChoices
from lm_eval_calibration.tasks.docs import checked_log_likelihoods, doc_hash


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
        self, doc: dict[str, Any], prompt: Any, choices: Sequence[Instance], **options: Any
    ) -> list[tuple[Any, Instance]]:
        """Return the requests of the choices in the doc's other orders, each with the order's rotation."""
        if self.slots is None:
            return []
        n_choices = len(choices)
        if len(self.slots.texts(doc) or ()) != n_choices:
            raise TaskError(
                f"{self.task.location_of(doc)}: permute finds other texts in {self.slots} than the {n_choices} choices"
            )
        text = self.task.doc_to_text(doc)
        found: list[tuple[Any, Instance]] = []
        for rotation in rotations(doc_hash(doc), self.n_orders, n_choices)[1:]:
            rotated = self.slots.rotated(doc, rotation)
            context = replace_last(prompt, text, self.task.doc_to_text(rotated))
            if context is None:
                raise TaskError(f"{self.task.location_of(doc)}: permute needs the prompt to hold doc_to_text as it is")
            for request in self.task.stock_requests(rotated, context, **options)[:n_choices]:
                request.doc = doc
                found.append((rotation, request))
        return found

    def fields(self, scored: ScoredChoices, replies: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
        """Return the log-likelihoods of the choices under each order, in the doc's own order of choices."""
        orders = {0: scored.log_likelihoods}
        for rotation, answers in sorted(replies.items()):
            shown = checked_log_likelihoods([float(answer[0]) for answer in answers], scored.location)
            orders[rotation] = in_own_order(shown, rotation)
        return {"rotations": tuple(orders), "rotated_log_likelihoods": tuple(orders.values())}
