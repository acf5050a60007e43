"""The backend's own model call on a batch of rows, reduced to the logits of the scored positions."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import pad_and_concat

from lm_eval_calibration.backends.certificate import certificate
from lm_eval_calibration.backends.hf.chunks import Call, Take, can_chunk, logits_in_chunks
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
        self.first = rows[0] if rows else Row((), (), 0)
        is_causal = lm.backend == "causal" and bool(rows)
        self.picks, self.drops_cache = spared(lm, self.first.inputs) if is_causal else Spared(False, False)
        self.certificate = certificate(lm, "transformers", "torch", distributions="exact")

    def __call__(self, batch: list[Row]) -> tuple[torch.Tensor, list[range]]:
        """Return logits [n, vocab_size] and, for each row of the batch, which of the n are its positions."""
        logits = self._seq2seq(batch) if self.lm.backend == "seq2seq" else self._causal(batch)
        ends = [0]
        for row in batch:
            ends.append(ends[-1] + row.n_scored)
        return logits, [range(a, b) for a, b in pairwise(ends)]

    def in_chunks(self, batch: list[Row], size: int, take: Take) -> None:
        """Give the same logits to ``take``, at most ``size`` positions at a time where the model allows that."""
        if self.chunks:
            with self._sparing_the_cache():
                logits_in_chunks(self.lm, self._call(batch), size, take)
        else:
            take(self(batch)[0])

    @cached_property
    def chunks(self) -> bool:
        """Whether the model's output layer can be shown some positions after the other."""
        inputs, labels = (self.first.inputs[:8], self.first.labels[:8])
        if not inputs or (self.lm.backend == "causal" and not self.picks):
            return False
        batch = [Row(inputs, labels, len(labels or inputs))] * 2
        expected = self(batch)[0]
        with self._sparing_the_cache():
            return can_chunk(self.lm, self._call(batch), expected)

    def _call(self, batch: list[Row]) -> Call:
        """Return the model's call on a batch."""
        if self.lm.backend == "causal":
            inputs, row, position = self._scored(batch)
            return Call(partial(self.lm._model_call, inputs), row, position, inputs.shape[1])
        inputs, options = self._with_labels(batch)
        pairs = [(i, position) for i, row in enumerate(batch) for position in range(row.n_scored)]
        row, position = to_device(pairs, self.lm.device).T
        return Call(partial(self.lm._model_call, inputs, **options), row, position, options["labels"].shape[1])

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
        inputs, options = self._with_labels(batch)
        logits = self.lm._model_call(inputs, **options)
        return torch.cat([logits[i, : row.n_scored] for i, row in enumerate(batch)])

    def _with_labels(self, batch: list[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return an encoder-decoder's inputs, and what its call takes beside them."""
        device = self.lm.device
        labels = _pad([row.labels[-self.lm.max_length :] for row in batch], device)
        mask = _pad([(1,) * len(row.inputs) for row in batch], device)
        return _pad([row.inputs for row in batch], device), {"attn_mask": mask, "labels": labels}


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
