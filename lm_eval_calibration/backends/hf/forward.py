"""The backend's own model call on a batch of rows, reduced to the logits of the scored positions."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import pad_and_concat

from lm_eval_calibration.backends.certificate import certificate
from lm_eval_calibration.backends.hf.chunks import can_chunk, logits_in_chunks
from lm_eval_calibration.backends.hf.output_layer import Spared, at, only_positions, spared, without_cache
from lm_eval_calibration.backends.hf.prefixes import Tokens
from lm_eval_calibration.backends.hf.transfer import to_device


class Row(NamedTuple):
    """One line of a batch."""

    inputs: Tokens  # what the decoder (causal) or the encoder (seq2seq) reads
    labels: Tokens  # seq2seq: a continuation; causal: empty
    n_scored: int  # positions needed: the last ones (causal) or all of the labels (seq2seq)


class Forward:
    """Calls of one backend's model."""

    def __init__(self, lm: HFLM, rows: list[Row]) -> None:
        self.lm = lm
        self.tokens = rows[0].inputs if rows else ()
        is_causal = lm.backend == "causal" and bool(rows)
        self.picks, self.drops_cache = spared(lm, self.tokens) if is_causal else Spared(False, False)
        self.certificate = certificate(lm, "transformers", "torch", distributions="exact")

    def __call__(self, batch: list[Row]) -> tuple[torch.Tensor, list[range]]:
        """Return logits [n, vocab_size] and, for each row of the batch, which of the n are its positions."""
        logits = self._seq2seq(batch) if self.lm.backend == "seq2seq" else self._causal(batch)
        ends = [0]
        for row in batch:
            ends.append(ends[-1] + row.n_scored)
        return logits, [range(a, b) for a, b in pairwise(ends)]

    def in_chunks(self, batch: list[Row], size: int) -> Iterator[torch.Tensor]:
        """Yield the same logits, at most ``size`` positions at a time where the model allows that."""
        if not self.chunks:
            yield self(batch)[0]
            return
        inputs, row, position = self._scored(batch)
        with self._sparing_the_cache():
            yield from logits_in_chunks(self.lm, inputs, row, position, size)

    @cached_property
    def chunks(self) -> bool:
        """Whether the model's output layer can be shown some positions after the other."""
        return self.picks and can_chunk(self.lm, self.tokens)

    def _scored(self, batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the padded inputs, and row and position of each scored token."""
        inputs = _pad([row.inputs for row in batch], self.lm.device)
        pairs = [
            (i, position)
            for i, row in enumerate(batch)
            for position in range(len(row.inputs) - row.n_scored, len(row.inputs))
        ]
        row, position = to_device(pairs, self.lm.device).T
        return inputs, row, position

    def _sparing_the_cache(self) -> AbstractContextManager[None]:
        return without_cache(self.lm) if self.drops_cache else nullcontext()

    def _causal(self, batch: list[Row]) -> torch.Tensor:
        inputs, row, position = self._scored(batch)
        with self._sparing_the_cache():
            if self.picks:
                with only_positions(self.lm, row, position, inputs.shape[1]):
                    logits: torch.Tensor = self.lm._model_call(inputs)
                return logits[0]
            logits = self.lm._model_call(inputs)
        return at(logits, row, position, inputs.shape[1])

    def _seq2seq(self, batch: list[Row]) -> torch.Tensor:
        device = self.lm.device
        inputs = _pad([row.inputs for row in batch], device)
        labels = _pad([row.labels[-self.lm.max_length :] for row in batch], device)
        mask = _pad([(1,) * len(row.inputs) for row in batch], device)
        logits = self.lm._model_call(inputs, attn_mask=mask, labels=labels)
        return torch.cat([logits[i, : row.n_scored] for i, row in enumerate(batch)])


def last_label_changes_nothing_before_it(lm: HFLM, context: list[int], continuation: list[int]) -> bool:
    """Try it once: mBART and its kin put the last label in front as the decoder's start."""
    first = continuation[0] if continuation else 0
    inputs = _pad([tuple(context[:8])] * 2, lm.device)
    labels = torch.tensor([[first, 2], [first, 3]], device=lm.device)
    logits = lm._model_call(inputs, attn_mask=torch.ones_like(inputs), labels=labels).float()
    return torch.allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5, equal_nan=True)


def _pad(rows: list[Tokens], device: torch.device) -> torch.Tensor:
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return to_device(pad_and_concat(max(map(len, rows)), tensors, padding_side="right"), device)
