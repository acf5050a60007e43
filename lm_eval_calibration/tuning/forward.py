"""One call of a model, reduced to the logits and hidden states at the positions that are wanted."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from lm_eval_calibration.backends.hf.output_layer import at, only_positions, spared
from lm_eval_calibration.tuning.loss import Batch


class Outputs(NamedTuple):
    """A model's outputs at the wanted positions of a batch.

    Attributes:
        query: [n_query_targets, vocab_size] logits.
        choices: [n_choice_targets, vocab_size] logits.
        answer: [n_answer_positions, vocab_size] logits.
        hidden: [n, hidden_size] input of the output layer after which the reply to the query comes.
    """

    query: torch.Tensor
    choices: torch.Tensor
    answer: torch.Tensor
    hidden: torch.Tensor


class Forward:
    """Calls a model; its output layer sees the wanted positions only, where the model allows that.

    Args:
        lm: the harness's backend, which holds the bare model.
        tokens: a row of tokens to try it with.
    """

    def __init__(self, lm: Any, tokens: tuple[int, ...]) -> None:
        self.lm = lm
        self.picks = spared(lm, tokens).logits

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Outputs:
        """Call a model, or what wraps it, on a batch."""
        parts = [batch["query"][:, :2], batch["choices"][:, :2], batch["answer"][:, :2], batch["query_end"]]
        logits, hidden = self._call(model, batch, torch.cat(parts), batch["input_ids"].shape[1])
        query, choices, answer, query_end = torch.split(logits, [len(part) for part in parts])
        return Outputs(query, choices, answer, hidden[-len(query_end) :])

    def frozen(self, model: Any, batch: Batch) -> torch.Tensor:
        """[n_answer_positions, vocab_size] logits of the model without its adapter, dropout off."""
        positions = batch["answer"][:, :2]
        end = int(positions[:, 1].max()) + 1  # the query after the answer changes nothing before it
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), model.disable_adapter():
                return self._call(model, batch, positions, end)[0]
        finally:
            model.train(was_training)

    def _call(
        self, model: Callable[..., Any], batch: Batch, positions: torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, vocab_size] logits and [n, hidden_size] inputs of the output layer at [n, 2] rows and positions.

        Both are on the batch's device, where targets, labels and a probe are: the model's last layers may be elsewhere.
        """
        row, position = positions.T
        seen: list[torch.Tensor] = []

        def keep(_: Any, arguments: tuple[Any, ...]) -> None:
            seen.append(arguments[0][0] if self.picks else at(arguments[0], row, position, length))

        inputs = {name: batch[name][:, :length] for name in ("input_ids", "attention_mask")}
        picking = only_positions(self.lm, row, position, length) if self.picks else nullcontext()
        with picking:  # whose hook comes before ours
            handle = self.lm.model.get_output_embeddings().register_forward_pre_hook(keep)
            try:
                logits = model(**inputs, use_cache=False).logits
            finally:
                handle.remove()
        logits = logits[0] if self.picks else at(logits, row, position, length)
        return logits.to(positions.device), seen[0].to(positions.device)
