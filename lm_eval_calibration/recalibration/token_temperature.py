"""Token-level temperature: softmax(z / T) of every token, which can also change which answer is the most likely.

A temperature of the choices (:class:`Temperature`) keeps their order. Divided before the softmax over the vocabulary,
as a serving engine does it, T changes each token's probability by another amount, so that of answers of several tokens
another one may win.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lm_eval_calibration.metrics import full_ece_from_gap_sums
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.recalibration.folds import fold_of
from lm_eval_calibration.recalibration.recalibrator import Recalibrator, Takes, warn
from lm_eval_calibration.records import ChoicesRecord, Record
from lm_eval_calibration.records.clusters import IntIds, as_numbers, drawn_as


@dataclass(frozen=True)
class TokenGrid:
    """N docs, their tokens scored at G temperatures.

    Attributes:
        temperatures: [G].
        log_likelihoods: N arrays [K, G], of the choices.
        labels: [N] position of the gold choice.
        gap_sums: [N, G, n_bins] of the gold choice's tokens.
        n_positions: [N] number of these.
        doc_hashes: [N].
        cluster_ids: [N] of what each doc was drawn with, 0 for nothing known.
    """

    temperatures: FloatArray
    log_likelihoods: list[FloatArray]
    labels: IntArray
    gap_sums: FloatArray
    n_positions: IntArray
    doc_hashes: NDArray[np.str_]
    cluster_ids: IntIds

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Take the docs with a sound gold label.

        Raises:
            ValueError: there is none, or a doc without temperatures or of another grid or number of bins.
        """
        kept = [r for r in records if isinstance(r, ChoicesRecord) and r.correct is not None]
        grids = []
        for doc in kept:
            if doc.temperatures is None:
                raise ValueError(
                    f"{doc.label} was not scored at several temperatures: run it with the option "
                    "temperatures: true and a backend that gives token distributions"
                )
            grids.append(doc.temperatures)
        forms = {(tuple(grid.grid), len(grid.gap_sums[0])) for grid in grids}
        if len(forms) != 1:
            raise ValueError(
                f"docs of {len(forms)} grids of temperatures and bins" if forms else "no doc has a gold label"
            )
        return cls(
            np.array(grids[0].grid, dtype=np.float64),
            [np.array(grid.log_likelihoods, dtype=np.float64) for grid in grids],
            np.array([doc.gold for doc in kept], dtype=np.int64),
            np.array([grid.gap_sums for grid in grids], dtype=np.float64),
            np.array([len(doc.log_probs or ()) for doc in kept], dtype=np.int64),
            np.array([doc.doc_hash for doc in kept], dtype=np.str_),
            as_numbers([doc.cluster for doc in kept]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: IntArray) -> Self:
        """Return these docs."""
        return type(self)(
            self.temperatures,
            [self.log_likelihoods[i] for i in which],
            self.labels[which],
            self.gap_sums[which],
            self.n_positions[which],
            self.doc_hashes[which],
            self.cluster_ids[which],
        )

    def probs(self, of_doc: IntArray) -> list[FloatArray]:
        """Return the choices' probabilities, each doc at its temperature: ``of_doc`` [N] says which of the grid."""
        return [softmax(choices[:, i]) for choices, i in zip(self.log_likelihoods, of_doc, strict=True)]

    @property
    def losses(self) -> FloatArray:
        """[N, G] negative log-likelihood of each doc's gold tokens, in nats."""
        gold = zip(self.log_likelihoods, self.labels, strict=True)
        return np.stack([-choices[label] for choices, label in gold])

    @property
    def correct(self) -> IntArray:
        """[N, G] 1 where the gold choice is the most likely (the first of equals, as the harness counts)."""
        answers = np.stack([choices.argmax(axis=0) for choices in self.log_likelihoods])
        return np.asarray(answers == self.labels[:, None], dtype=np.int64)

    def nll(self) -> FloatArray:
        """[G] mean negative log-likelihood of a gold token at each temperature, in nats."""
        return np.asarray(self.losses.sum(axis=0) / self.n_positions.sum())

    def full_ece(self) -> FloatArray:
        """[G] ``full_ece`` at each temperature."""
        each = np.moveaxis(self.gap_sums, 1, 0)
        return np.array([full_ece_from_gap_sums(sums, self.n_positions) for sums in each])

    def acc(self) -> FloatArray:
        """[G] accuracy at each temperature; equal at all where every choice has one token."""
        return np.asarray(self.correct.mean(axis=0))


@dataclass
class TokenTemperature(Recalibrator):
    """The temperature of the grid that makes the gold tokens most likely.

    Attributes:
        temperature: above 1 the model was overconfident, below 1 underconfident.

    Source: Guo et al. 2017, arXiv:1706.04599, at each token's logits.
    """

    method: ClassVar[str] = "token_temperature"
    takes: ClassVar[Takes] = "tokens"

    temperature: float | None = None

    def fit(self, inputs: TokenGrid, targets: None = None) -> Self:
        """Fit T to docs; the gold choices are in them."""
        nll = inputs.nll()
        best = int(np.argmin(np.where(np.isnan(nll), np.inf, nll)))
        if not np.isfinite(nll[best]):
            warn("token temperature left at 1: some gold token has probability 0 at every temperature")
            best = int(np.argmin(np.abs(inputs.temperatures - 1)))
        elif best in (0, len(nll) - 1):
            warn(f"the best token temperature is at the end of the grid, {inputs.temperatures[best]:g}, or beyond")
        self.temperature = float(inputs.temperatures[best])
        return self

    def index(self, grid: TokenGrid) -> int:
        """Return which temperature of other docs' grid it is.

        Raises:
            ValueError: none of them.
        """
        (temperature,) = self._parameters()
        index = int(np.argmin(np.abs(grid.temperatures - temperature)))
        if not np.isclose(grid.temperatures[index], temperature, rtol=1e-9):
            raise ValueError(f"temperature {temperature:g} is not in the grid {grid.temperatures.tolist()}")
        return index

    def predict_proba(self, inputs: TokenGrid) -> list[FloatArray]:
        """Return the choices' probabilities at T: softmax of their log-likelihoods, of which another may be largest."""
        return inputs.probs(np.full(len(inputs), self.index(inputs)))

    @classmethod
    def identity(cls) -> Self:
        """Return T = 1."""
        return cls(1.0)


class TokenCrossFit(NamedTuple):
    """Docs at a temperature that was fitted on other docs.

    Attributes:
        of_doc: [N] which temperature of the grid is each doc's.
        maps: fold to the map that was fitted on the docs of the other folds.
    """

    of_doc: IntArray
    maps: dict[int, TokenTemperature]


def cross_fit_tokens(docs: TokenGrid, *, n_folds: int = 5, seed: int = 0) -> TokenCrossFit:
    """Judge each fold of docs at the temperature of the docs of the other folds.

    Args:
        docs: the docs.
        n_folds: folds, see :func:`~lm_eval_calibration.recalibration.fold_of`.
        seed: of the folds.
    """
    fold = fold_of(drawn_as(docs.doc_hashes, docs.cluster_ids), n_folds, seed)
    maps = {int(k): _fit_others(docs, fold != k) for k in np.unique(fold)}
    return TokenCrossFit(np.array([maps[k].index(docs) for k in fold.tolist()]), maps)


def _fit_others(docs: TokenGrid, others: Any) -> TokenTemperature:
    if not others.any():
        warn("token temperature left at 1: there are no other docs to fit on")
        return TokenTemperature.identity()
    return TokenTemperature().fit(docs.take(np.flatnonzero(others)))
