"""What a test of two runs says, as a sentence for a paper: the numbers are those of the table's tests."""

import math

from lm_eval_calibration.metrics.verdicts import ALPHA, side_of_0
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.compare.table import Pair, Table
from lm_eval_calibration.reports.names import task_name
from lm_eval_calibration.reports.numbers import interval, p_equals
from lm_eval_calibration.results.columns import ACC, metric_of, title
from lm_eval_calibration.results.differences import POOLED

SHOWN = 3
"""Digits of a difference."""

BIAS = (
    "Brackets are 95% intervals, each of its difference alone; p allows for all tests of the table. Differences of "
    "binned errors (ECE, ACE, Full-ECE) are of estimates without a binned error's bias, so they can be other than "
    "those of the values in the table."
)
"""What is said beside the sentences, since the values stand on the same page."""


def results_sentences(table: Table) -> list[str]:
    """Return a sentence for each metric of the first table and each run, against the first run; differences first."""
    scope, reference = table.scopes[0].task, table.labels[0]
    pairs = [pair for pair in table.pairs if pair.task == scope and reference in (pair.a, pair.b)]
    tested = sorted((p for p in pairs if not math.isnan(p.p_adjusted)), key=lambda pair: pair.p_adjusted > ALPHA)
    return [sentence(pair, table.n_tests) for pair in tested]


def sentence(pair: Pair, n_tests: int) -> str:
    """Return e.g. "B's ECE is lower by 0.050 [0.020, 0.080] than A's, paired, p = 0.001, Holm over 12 tests."."""
    what = "accuracy" if pair.metric == ACC else title(pair.metric)
    tested = "paired" if pair.paired else "unpaired"
    where = f"{'all tasks' if pair.task == POOLED else task_name(pair.task)}, {counted(pair.n_docs)}"
    how = f"{tested}, {p_equals(pair.p_adjusted)}, Holm over {counted(n_tests, what='tests')} ({where})."
    if pair.p_adjusted > ALPHA:
        ends = interval(pair.low, pair.high, f"+.{SHOWN}f")
        alone = " (of this difference alone)" if side_of_0((pair.low, pair.high)) else ""
        found = f"{pair.difference:+.{SHOWN}f} {ends}{alone}"
        return f"{pair.b}'s {what} is not shown to differ from {pair.a}'s: {found}, {how}"
    low, high = sorted((abs(pair.low), abs(pair.high)))
    ends = interval(low, high, f".{SHOWN}f")
    side = _side(pair)
    return f"{pair.b}'s {what} is {side} by {abs(pair.difference):.{SHOWN}f} {ends} than {pair.a}'s, {how}"


def _side(pair: Pair) -> str:
    """Which way the metric of b lies; of one whose sign matters, in numbers alone."""
    side = "higher" if pair.difference > 0 else "lower"
    return side if metric_of(pair.metric).higher_is_better is not None else f"{side} (best at 0)"
