"""One call of a model, reduced to the logits and hidden states of the places that are wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from lm_eval_calibration.backends.hf.output_layer import can_pick, only_positions
from lm_eval_calibration.tuning.loss import Batch


class Seen(NamedTuple):
    """What a model says at the wanted places of a batch.

    Attributes:
        query: [n_query_spots, vocab_size] logits.
        choices: [n_choice_spots, vocab_size] logits.
        answer: [n_answer_positions, vocab_size] logits.
        hidden: [n, hidden_size] what the output layer gets where the query is answered.
    """

    query: torch.Tensor
    choices: torch.Tensor
    answer: torch.Tensor
    hidden: torch.Tensor


class Forward:
    """Calls a model; its output layer sees the wanted places only, where the model allows that.

    Args:
        lm: the harness's backend, which holds the bare model.
        tokens: a row of tokens to try it with.
    """

    def __init__(self, lm: Any, tokens: tuple[int, ...]) -> None:
        self.lm = lm
        self.picks = can_pick(lm, tokens)

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Seen:
        """Call a model, or what wraps it, on a batch."""
        parts = [batch["query"][:, :2], batch["choices"][:, :2], batch["answer"][:, :2], batch["asked"]]
        row, position = torch.cat(parts).T
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with self._hidden_states(row, position, inputs["input_ids"].shape[1]) as hidden:
            logits = model(**inputs, use_cache=False).logits
        found = logits[0] if self.picks else logits[row, position]
        query, choices, answer, asked = found.split([len(part) for part in parts])
        return Seen(query, choices, answer, hidden[0][-len(asked) :])

    def frozen(self, model: Any, batch: Batch) -> torch.Tensor:
        """[n_answer_positions, vocab_size] logits of the model without its adapter, dropout off."""
        end = int(batch["answer"][:, 1].max()) + 1  # the query after the answer changes nothing before it
        row, position = batch["answer"][:, :2].T
        inputs = {name: batch[name][:, :end] for name in ("input_ids", "attention_mask")}
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), model.disable_adapter(), self._hidden_states(row, position, end):
                logits: torch.Tensor = model(**inputs, use_cache=False).logits
        finally:
            model.train(was_training)
        return logits[0] if self.picks else logits[row, position]

    @contextmanager
    def _hidden_states(self, row: torch.Tensor, position: torch.Tensor, length: int) -> Iterator[list[torch.Tensor]]:
        """Let the output layer see these places only, if it can, and keep what it sees of them."""
        seen: list[torch.Tensor] = []

        def keep(_: Any, arguments: tuple[Any, ...]) -> None:
            hidden = arguments[0]
            seen.append(hidden[0] if self.picks else hidden[row, position])

        picking = only_positions(self.lm, row, position, length) if self.picks else nullcontext()
        with picking:  # whose hook comes before ours
            handle = self.lm.model.get_output_embeddings().register_forward_pre_hook(keep)
            try:
                yield seen
            finally:
                handle.remove()
