"""The figures of Ye et al. 2024, arXiv:2401.12794, from logits: LAC and APS, alpha 0.1, half of the docs calibrate.

Written here as the paper describes them, option by option, for six options with "I don't know" and "none of the above".
The paper's public code differs from its text in two ways: it puts the first option in the place of an empty set, and
``numpy.quantile(method="higher")`` takes the order statistic after the one that the text names.
"""

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from lm_eval_calibration.decisions import Wanted, decide
from lm_eval_calibration.recalibration import Docs

N, K, ALPHA = 1200, 6, 0.1


def score(name: str, probs: list[float], k: int) -> float:
    return 1 - probs[k] if name == "lac" else sum(p for p in probs if p >= probs[k])


def figures(name: str, logits: Any, answers: Any, calibrates: Any, *, as_code: bool = False) -> dict[str, float]:
    """Set size, coverage, accuracy and UAcc on the half that does not calibrate."""
    probs = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits.tolist()]
    scores = sorted(score(name, p, a) for p, a, is_in in zip(probs, answers, calibrates, strict=True) if is_in)
    rank = math.ceil((len(scores) + 1) * (1 - ALPHA))
    q = scores[rank if as_code else rank - 1]
    sizes, held, right = [], [], []
    for p, answer, is_in in zip(probs, answers, calibrates, strict=True):
        if is_in:
            continue
        best = max(range(K), key=lambda k: p[k])
        members = [k for k in range(K) if score(name, p, k) <= q] or ([best] if as_code else [])
        sizes.append(len(members))
        held.append(answer in members)
        right.append(best == answer)
    acc, size = sum(right) / len(right), sum(sizes) / len(sizes)
    return {"size": size, "coverage": sum(held) / len(held), "uacc": acc / size * math.sqrt(K)}


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2.5, (N, K))
    truth = np.exp(log_softmax(0.7 * logits, axis=1))
    answers = (truth.cumsum(axis=1) > rng.random((N, 1))).argmax(axis=1)
    return logits, answers, rng.permutation(N) < N // 2


@pytest.mark.parametrize("name", ["lac", "aps"])
def test_set_size_coverage_and_uacc(name: str, made: tuple[Any, Any, Any]) -> None:
    logits, answers, calibrates = made
    docs = Docs.of(log_softmax(logits, axis=1), answers, [f"{i}" for i in range(N)])
    shown = decide(docs, Wanted(ALPHA), calibration=calibrates).sets[name].shown
    assert not shown.is_cross_conformal
    expected = figures(name, logits, answers, calibrates)
    ours = {"size": shown.set_size, "coverage": shown.coverage.value, "uacc": shown.uacc}
    assert ours == pytest.approx(expected, abs=1e-12)
    code = figures(name, logits, answers, calibrates, as_code=True)
    assert code["size"] >= expected["size"] + shown.empty.value - 1e-12
    assert code["coverage"] == pytest.approx(expected["coverage"], abs=0.06)
