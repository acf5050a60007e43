"""The kinds of metrics: which two arrays one takes, how they are checked, and how calibrated outcomes are drawn."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.token_sums import check_gap_sums, check_token_counts, check_token_gaps
from lm_eval_calibration.metrics.uncertainty import nulls
from lm_eval_calibration.metrics.validation import check_choices, check_top_label

KindName = Literal["top_label", "choices", "full_vocabulary", "token_gaps", "token_counts"]
Table = Literal["choices", "generation", "corpus"]


class Kind(NamedTuple):
    """A kind of metric.

    Attributes:
        arrays: Names of its two arrays.
        check: From these to the checked arrays that a metric's own functions take.
        redraw: From a random generator and the checked arrays to the two arrays of a calibrated model; None where
            nothing says what calibration is.
        tables: Where its metrics are defined: for docs with choices, with generated answers, for corpora.
    """

    arrays: tuple[str, str]
    check: Callable[[Any, Any], tuple[Any, ...]]
    redraw: Callable[..., tuple[Any, Any]] | None
    tables: tuple[Table, ...]


def _check_choices(probs: Any, labels: ArrayLike) -> tuple[Any, ...]:
    return (check_choices(probs, labels),)


_BOTH: tuple[Table, ...] = ("choices", "generation")

KINDS: dict[KindName, Kind] = {
    "top_label": Kind(("confidence", "correct"), check_top_label, nulls.redraw_correct, _BOTH),
    "choices": Kind(("probs", "labels"), _check_choices, nulls.redraw_labels, ("choices",)),
    "full_vocabulary": Kind(("gap_sums", "n_positions"), check_gap_sums, nulls.redraw_signs, _BOTH),
    "token_gaps": Kind(("gaps", "n_tokens"), check_token_gaps, nulls.redraw_signs, ("corpus",)),
    "token_counts": Kind(("n_correct", "n_tokens"), check_token_counts, None, ("corpus",)),
}
