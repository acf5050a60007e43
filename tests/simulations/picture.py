"""The README's picture: the ece that a perfectly calibrated model shows, by the number of docs.

python tests/simulations/picture.py
"""

import numpy as np

from lm_eval_calibration import metrics

SIZES = (50, 100, 200, 500, 1_000, 2_000, 5_000, 14_042)
DRAWS = 200
WIDEST, COLUMNS = 0.25, 50


def drawn_errors(n: int, draws: int = DRAWS) -> np.ndarray:
    """The ece of that many samples of n docs whose confidences, spread over (0.25, 1), are all right."""
    rng = np.random.default_rng(n)
    confidence = rng.uniform(0.25, 1, (draws, n))
    return np.array([metrics.ece(c, rng.random(n) < c) for c in confidence])


def picture() -> str:
    ruler = "".join(f"{x:<10.2f}" for x in np.arange(0, WIDEST, 0.05))
    lines = [f"  docs  ece {ruler}mean"]
    for n in SIZES:
        errors = drawn_errors(n)
        low, mean, high = (_column(x) for x in (np.quantile(errors, 0.025), errors.mean(), np.quantile(errors, 0.975)))
        bar = "".join("●" if i == mean else "━" if low <= i <= high else " " for i in range(COLUMNS))
        lines.append(f"{n:>6,}      {bar}{errors.mean():.3f}")
    return "\n".join(line.rstrip() for line in lines)


def _column(error: float) -> int:
    return min(COLUMNS - 1, round(error / WIDEST * COLUMNS))


if __name__ == "__main__":
    print(picture())
