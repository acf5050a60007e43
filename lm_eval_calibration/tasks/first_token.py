"""What a chat server's answers leave open: choices that no listed token begins, mass that no choice received."""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval_calibration.backends import TokenScores
from lm_eval_calibration.backends.api.first_token import is_listed, is_of_first_token, unassigned_mass
from lm_eval_calibration.harness.log import warn_of_tasks

UNASSIGNED_MASS = "unassigned_mass"
"""Mean probability, over the docs, that an answer begins with none of the doc's choices."""


def fields_of(choices: Sequence[Any], gold_certificate: Any) -> dict[str, Any]:
    """Return a record's certificate and, where choices were read from the first token, what that left open."""
    if not all(isinstance(answer, TokenScores) and is_of_first_token(answer) for answer in choices):
        return {"certificate": gold_certificate}
    bounded = [k for k, answer in enumerate(choices) if not is_listed(answer)]
    return {
        "certificate": choices[bounded[0]].certificate if bounded else gold_certificate,
        "extra": {UNASSIGNED_MASS: unassigned_mass(choices), "bounded_choices": bounded},
    }


def warn_of_open_mass(task: str, docs: Iterable[Sequence[TokenScores]]) -> bool:
    """Warn of docs whose choices are bounded; return whether all choices were read from first tokens."""
    docs = list(docs)
    if not docs or not all(is_of_first_token(answer) for choices in docs for answer in choices):
        return False
    bounded = sum(any(not is_listed(answer) for answer in choices) for choices in docs)
    unread = sum(not any(map(is_listed, choices)) for choices in docs)
    if bounded:
        counts = "that is none of the most probable first tokens; it counts with the largest probability it may have"
        equal = "no choice is one of them: there all are taken for equally probable, and the first for the answer"
        warn_of_tasks(
            [task],
            f"of {len(docs)} docs {bounded} have a choice {counts}. In {unread} {equal}",
            f"some docs have a choice {counts}. In others {equal}",
        )
    return True
