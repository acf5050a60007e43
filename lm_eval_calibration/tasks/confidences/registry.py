"""Every source of confidence, in the order in which tables have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm_eval_calibration.tasks.confidences.abstention import ABSTENTION
from lm_eval_calibration.tasks.confidences.answer import ANSWER, TAIL
from lm_eval_calibration.tasks.confidences.budgets import BUDGETS
from lm_eval_calibration.tasks.confidences.chain import CHAINS
from lm_eval_calibration.tasks.confidences.length_normalized import LENGTH_NORMALIZED
from lm_eval_calibration.tasks.confidences.missing_answers import FINAL_MISSING, MISSING_RIGHT, MISSING_WRONG
from lm_eval_calibration.tasks.confidences.p_true import P_TRUE
from lm_eval_calibration.tasks.confidences.permuted import PERMUTED
from lm_eval_calibration.tasks.confidences.self_consistency import ENTROPY, SELF_CONSISTENCY
from lm_eval_calibration.tasks.confidences.sequence import SEQUENCE
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.temperature import TEMPERATURE_SCALED
from lm_eval_calibration.tasks.confidences.verbalized import VERBALIZED
from lm_eval_calibration.tasks.confidences.verbalized_1s import VERBALIZED_1S

_SOURCES: list[ConfidenceSource] = [
    *(SEQUENCE, LENGTH_NORMALIZED, PERMUTED, TEMPERATURE_SCALED, MISSING_RIGHT, MISSING_WRONG, ANSWER),
    *(*FINAL_MISSING, TAIL, *CHAINS, BUDGETS, P_TRUE, VERBALIZED, VERBALIZED_1S, SELF_CONSISTENCY, ENTROPY),
    ABSTENTION,
]


def sources(table: Table | None = None) -> list[ConfidenceSource]:
    """Return the sources, all or those of a table."""
    return [source for source in _SOURCES if table is None or table in source.tables]


def requested(options: Any, table: Table) -> list[ConfidenceSource]:
    """Return the sources of a table that the options switch on."""
    return [source for source in sources(table) if source.is_requested(options)]


def setting_form(options: Any) -> ConfidenceSource | None:
    """Return the source, of those that the options switch on, that sets the form of a reply; None where none does."""
    return next((source for source in sources() if source.sets_form and source.is_requested(options)), None)


def register(source: ConfidenceSource) -> None:
    """Add a source; raise ValueError where there is one of this name."""
    if any(other.name == source.name for other in _SOURCES):
        raise ValueError(f"there is a confidence source {source.name!r} already")
    _SOURCES.append(source)


@contextmanager
def temporarily(source: ConfidenceSource) -> Iterator[ConfidenceSource]:
    """Register a source within a ``with`` block only, as tests do."""
    register(source)
    try:
        yield source
    finally:
        _SOURCES.remove(source)
