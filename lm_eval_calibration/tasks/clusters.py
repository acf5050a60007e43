"""Docs that were drawn together: those of the option ``cluster``, and those that look so where it is not set."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.log import warn_of_tasks
from lm_eval_calibration.records import DOC, cluster_of

LONG = 100
"""Characters from which a text that several docs have is a passage that they are about."""

SHARED = 0.2
"""Share of docs with such a text from which they look clustered."""


def check_clusters(task: Any, docs: Sequence[Any], field: str) -> None:
    """Warn where a field makes no clusters of some docs.

    Args:
        task: the calibrated task.
        docs: of the run.
        field: its option ``cluster``.

    Raises:
        TaskError: a doc does not have the field, or nothing in it.
    """
    found = set()
    for doc in docs:
        try:
            found.add(cluster_of(doc, field))
        except ValueError as error:
            raise TaskError(
                f"{task.location_of(doc)}: calibration option cluster is {field!r}, but the doc {error}",
                ids=task.ids_of(doc),
            ) from error
    if len(found) == 1 < len(docs):
        warn_of_tasks(
            [task.task_name],
            f"{field} is the same in all {len(docs)} docs: one cluster has no standard error, interval or p-value",
            summary=f"{field} is the same in all docs: one cluster has no standard error, interval or p-value",
        )
    elif len(found) == len(docs) > 1:
        warn_of_tasks(
            [task.task_name],
            f"{field} is another in each of the {len(docs)} docs: there is nothing to cluster by",
            summary=f"{field} is another in each doc: there is nothing to cluster by",
        )


def hint_at_clusters(task: Any, docs: Sequence[Any]) -> None:
    """Warn where docs look clustered: several have the same long text in one of their fields."""
    if (found := shared_field(docs)) is None:
        return
    field, n_docs, n_values = found
    advice = (
        f"intervals that take docs as independent are too narrow. Set metadata.calibration.cluster to {field} (or pass "
        f"--cluster {field} to report, compare and the others)"
    )
    warn_of_tasks(
        [task.task_name],
        f"{n_docs} of {len(docs)} docs share {n_values} values of {field}: {advice}",
        summary=f"docs share values of {field}: {advice}",
    )


def shared_field(docs: Sequence[Any]) -> tuple[str, int, int] | None:
    """Return the field in which most docs have a long text that others have too: its name, docs, and texts.

    None where these are less than a fifth of the docs; a text of every doc is an instruction, and no field.
    """
    texts: dict[str, Counter[str]] = {}
    for doc in docs:
        for field, value in _texts_of(doc):
            texts.setdefault(field, Counter())[value] += 1
    best = None
    for field, counts in texts.items():
        repeated = [n for n in counts.values() if n > 1]
        n_docs = sum(repeated)
        if len(counts) > 1 and n_docs >= SHARED * len(docs) and (best is None or n_docs > best[1]):
            best = field, n_docs, len(repeated)
    return best


def _texts_of(doc: Any, prefix: str = DOC) -> Iterator[tuple[str, str]]:
    """Yield the long texts of a doc by their fields."""
    for name, value in doc.items() if isinstance(doc, Mapping) else ():
        if isinstance(value, str) and len(value) >= LONG:
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _texts_of(value, f"{prefix}{name}.")
