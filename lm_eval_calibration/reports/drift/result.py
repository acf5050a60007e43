"""What the gate says, as data."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval_calibration.reports.drift.gate import ALPHA, Test

EXIT_CODES = {"ok": 0, "drifted": 1, "not comparable": 2}
"""Exit code of the command by verdict."""


@dataclass(frozen=True)
class Result:
    """What the gate says of a new run against a base run, both by label.

    There are no tests, but ``reasons``, where the runs are not comparable.
    """

    base: str
    new: str
    n_bins: int
    tests: tuple[Test, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["ok", "drifted", "not comparable"]:
        """Whether anything has drifted."""
        if self.reasons:
            return "not comparable"
        return "drifted" if self.drifted else "ok"

    @property
    def drifted(self) -> tuple[Test, ...]:
        """Tests that say so."""
        return tuple(test for test in self.tests if test.verdict == "drifted")

    @property
    def n_tests(self) -> int:
        """Number of tests that Holm's procedure was over."""
        return sum(not math.isnan(test.p_value) for test in self.tests)

    def summary(self) -> str:
        """Say in one line what came out."""
        if self.reasons:
            return "not comparable: " + "; ".join(self.reasons)
        texts = {
            "within": "shown to be within the tolerance",
            "unclear": "unclear (too few docs to tell)",
            "undefined": "undefined",
        }
        counts = {text: sum(test.verdict == verdict for test in self.tests) for verdict, text in texts.items()}
        others = ", ".join(f"{n} {text}" for text, n in counts.items() if n)
        if self.drifted:
            names = ", ".join(f"{test.metric} of {test.task}" for test in self.drifted)
            return f"drifted: {names}" + (f"; {others}" if others else "")
        return f"no drift shown: {others}"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; undefined numbers are nan."""
        return {
            "verdict": self.verdict,
            "summary": self.summary(),
            "base": self.base,
            "new": self.new,
            "n_bins": self.n_bins,
            "test": "one-sided, worsening beyond the tolerance; p-values adjusted by Holm over all tests",
            "alpha": ALPHA,
            "n_tests": self.n_tests,
            "reasons": self.reasons,
            "notes": self.notes,
            "tests": self.tests,
        }
