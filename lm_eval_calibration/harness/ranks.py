"""Several ranks: one that holds no doc of a task, as the last of three does where a task has two.

The harness raises there, and would then wait forever: ranks meet after every type of request. So such a rank borrows
the task's first doc: it makes the requests that the others make, and its answers are not counted, since the harness
asks each rank for the results of its own docs only. Where ranks are gathered, what such a rank lacks is nothing.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import Task


def with_borrowed_doc(task: Task, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``build_all_requests``, for the task's first doc where this rank has none.

    Args:
        task: any task of the harness.
        arguments: as the evaluator gives them.
    """
    if arguments.get("world_size", 1) == 1:
        return dict(arguments)
    share = {name: arguments.get(name) for name in ("limit", "samples")}
    for _ in task.doc_iterator(rank=arguments["rank"], world_size=arguments["world_size"], **share):
        return dict(arguments)
    # Of so many ranks the first holds the first doc alone. These requests are nobody's to keep for another run.
    return {**arguments, "rank": 0, "world_size": sys.maxsize, "cache_requests": False}


def tolerate_missing_metrics(lm: Any) -> None:
    """Let rank 0 read the metrics of ranks that lack some, or a whole task, as empty lists (a patch of the backend).

    The evaluator gathers a mapping task -> metric -> values (and task -> samples) of every rank, and looks up in each
    what rank 0 has.
    """
    gather = lm.gather_object
    if hasattr(gather, "stock"):
        return

    def patched(obj: Any, dst: int = 0) -> Any:
        gathered = gather(obj, dst=dst)
        return gathered if gathered is None else [_with_nothing_missing(part) for part in gathered]

    patched.stock = gather  # type: ignore[attr-defined]
    lm.gather_object = patched


def _with_nothing_missing(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    return {
        task: defaultdict(list, metrics) if isinstance(metrics, Mapping) else metrics for task, metrics in part.items()
    }
