"""Folds of docs by their hashes, or by those of their clusters."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics.validation import IntArray, check_positive_integer


def fold_of(drawn_as: NDArray[np.str_], n_folds: int = 5, seed: int = 0) -> IntArray:
    """Fold of each doc, from its hash (or its cluster) alone: the same for every model and every run.

    Args:
        drawn_as: [N] hashes of docs, or names of their clusters; equal ones fall in one fold.
        n_folds: at least 2.
        seed: another seed shuffles docs otherwise.

    Returns:
        [N] integers in 0..n_folds - 1. Folds are equal in expectation; with few docs one may be empty.
    """
    check_positive_integer("n_folds", n_folds, at_least=2)
    digests = (hashlib.sha256(f"{seed} {name}".encode()).digest()[:8] for name in drawn_as)
    return np.array([int.from_bytes(digest) % n_folds for digest in digests], dtype=np.int64)
