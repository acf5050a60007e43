"""What became of a generated text: an answer and where it stands in it, or none and why."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.backends import tokens_of_span
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.pools import DocPool, Statistic
from lm_eval_calibration.records import (
    ANSWERED,
    EMPTY,
    NOT_FOUND,
    OUTCOMES,
    REFUSED,
    TRUNCATED,
    FinalAnswer,
    GenerationRecord,
)
from lm_eval_calibration.tasks.answer_spans import LocatedAnswer


def final_answer(text: Any, located: LocatedAnswer, *, refusal: str = "", tail: int = 0) -> FinalAnswer:
    """Return what became of a text, and which of its tokens are the answer's.

    Args:
        text: as it was generated, a :class:`~lm_eval_calibration.backends.GeneratedText`.
        located: the scored filter's answer and where it stands in the text.
        refusal: regular expression that refusals match; "" for none.
        tail: tokens before the answer that the tail's confidence is of; 0 for none.
    """
    outcome = _outcome(text, located, refusal)
    if outcome != ANSWERED or located.span is None:
        return FinalAnswer(outcome)
    ends, tokens = getattr(text, "token_ends", None), None
    if ends is not None and located.span[0] < located.span[1]:
        of_answer = tokens_of_span(ends, *located.span)
        tokens = (of_answer.start, of_answer.stop)
    return FinalAnswer(outcome, located.span, tokens, tail or None)


def _outcome(text: Any, located: LocatedAnswer, refusal: str) -> str:
    ends_at_limit = getattr(text, "finish_reason", None) == "length"
    if getattr(text, "thought_is_open", False):
        return TRUNCATED
    if not str(text).strip():
        return TRUNCATED if ends_at_limit else EMPTY
    if refusal and re.search(refusal, text):
        return REFUSED
    if not located.is_found:
        return TRUNCATED if ends_at_limit else NOT_FOUND
    return ANSWERED


def warn_of_strict_filter(task: str, scored: str, n_found: Mapping[str, int], n_texts: int) -> None:
    """Warn where the scored filter finds an answer in less than half as many texts as another filter of the task.

    Args:
        task: its name.
        scored: the filter whose answers are scored.
        n_found: texts in which each filter finds an answer.
        n_texts: texts.
    """
    best = max(n_found, key=lambda name: n_found[name])
    if 2 * n_found[scored] < n_found[best]:
        logger.warning(
            f"{task}: the filter {scored}, whose answers are scored, finds an answer in {n_found[scored]} of {n_texts} "
            f"texts, and {best} in {n_found[best]}: to score the latter's, set metadata.calibration.filter to {best}"
        )


@dataclass(frozen=True)
class OutcomeShare(Statistic):
    """The share of docs whose answers have one outcome."""

    outcome: str

    def value(self, pool: DocPool) -> float:
        """Return the share."""
        return float(np.mean(self._hits(pool)))

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error, sqrt(p (1 - p) / (N - 1)), as the harness has it of a mean."""
        hits = self._hits(pool)
        return float(np.std(hits, ddof=1) / np.sqrt(len(hits)))

    def _hits(self, pool: DocPool) -> Sequence[bool]:
        records = [record for record in pool.records if isinstance(record, GenerationRecord)]
        return [record.generation.outcome == self.outcome for record in records]


OUTCOME_SHARES: Mapping[str, Statistic] = {outcome: OutcomeShare(outcome) for outcome in OUTCOMES}
"""By the name that the table shows."""
