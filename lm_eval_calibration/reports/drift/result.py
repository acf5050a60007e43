"""What the gate says, as data."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval_calibration.reports.drift.gate import ALPHA, Test, docs_to_settle
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import count

EXIT_CODES = {"ok": 0, "drifted": 1, "unclear": 1, "not comparable": 2}
"""Exit code of the command by verdict."""


@dataclass(frozen=True)
class Result:
    """What the gate says of a new run against a base run, both by label.

    There are no tests, but ``reasons``, where the runs are not comparable. With ``fails_on_unclear`` the gate fails on
    what these docs are too few to tell, too.
    """

    base: str
    new: str
    n_bins: int
    tests: tuple[Test, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fails_on_unclear: bool = False

    @property
    def verdict(self) -> Literal["ok", "drifted", "unclear", "not comparable"]:
        """Whether anything has drifted."""
        if self.reasons:
            return "not comparable"
        if self.drifted:
            return "drifted"
        return "unclear" if self.fails_on_unclear and self.docs_to_settle else "ok"

    @property
    def drifted(self) -> tuple[Test, ...]:
        """Tests that say so."""
        return tuple(test for test in self.tests if test.verdict == "drifted")

    @property
    def n_tests(self) -> int:
        """Number of tests that Holm's procedure was over."""
        return sum(not math.isnan(test.p_value) for test in self.tests)

    @property
    def docs_to_settle(self) -> float:
        """About how many docs would settle what is unclear; 0 where nothing is."""
        return docs_to_settle(self.tests)

    def summary(self) -> str:
        """Say in one line what came out."""
        if self.reasons:
            return "not comparable: " + "; ".join(self.reasons)
        texts = {
            "unchanged": "the same in every doc",
            "within": "shown to be within the tolerance",
            "unclear": "unclear (too few docs to tell)",
            "undefined": "undefined",
        }
        counts = {text: sum(test.verdict == verdict for test in self.tests) for verdict, text in texts.items()}
        others = ", ".join(f"{n} {text}" for text, n in counts.items() if n)
        if self.drifted:
            names = ", ".join(f"{test.metric} of {shown(test.task)}" for test in self.drifted)
            return f"drifted: {names}" + (f"; {others}" if others else "")
        if self.verdict == "unclear":
            needed = self.docs_to_settle
            docs = f"about {count(int(needed))} docs" if math.isfinite(needed) else "no number of docs"
            return (
                f"unclear, which fails (--fail_on_unclear): {others}; were changes as estimated, {docs} would settle it"
            )
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
            **({"docs_to_settle": self.docs_to_settle} if self.fails_on_unclear else {}),
            "tests": [test._replace(task=shown(test.task)) for test in self.tests],
        }
