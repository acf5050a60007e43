"""Docs for recalibration."""

from collections.abc import Callable

import numpy as np
import pytest

from lm_eval_calibration.recalibration import Docs


def make_docs(
    n: int = 300,
    *,
    temperature: float = 2.0,
    k: int = 4,
    seed: int = 0,
    ragged: bool = False,
    group: str = "",
    ties: bool = False,
) -> Docs:
    """Docs whose log-likelihoods are right but for being ``temperature`` times too large."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for _ in range(n):
        z = rng.normal(0, 1.5, rng.integers(2, k + 1) if ragged else k)
        z = np.round(z) if ties else z
        p = np.exp(z) / np.exp(z).sum()
        labels.append(int(rng.choice(len(z), p=p)))
        rows.append(temperature * z)
    return Docs.of(rows if ragged else np.array(rows), labels, [f"{group}{seed}-{i}" for i in range(n)], [group] * n)


def together(*parts: Docs) -> Docs:
    return Docs.of(
        [row for part in parts for row in part.log_likelihoods],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.doc_hashes for part in parts]).tolist(),
        np.concatenate([part.groups for part in parts]).tolist(),
    )


@pytest.fixture(scope="session")
def docs_of() -> Callable[..., Docs]:
    return make_docs


@pytest.fixture(scope="session")
def joined() -> Callable[..., Docs]:
    return together


@pytest.fixture(scope="session")
def golden_docs() -> Docs:
    """The golden sample of the metric definitions: 2,000 docs, twice too sure."""
    rng = np.random.default_rng(0)
    n, k = 2000, 4
    z = rng.normal(0, 1.5, (n, k))
    y = np.array([rng.choice(k, p=np.exp(r) / np.exp(r).sum()) for r in z])
    return Docs.of(2 * z, y, [f"golden {i}" for i in range(n)])
