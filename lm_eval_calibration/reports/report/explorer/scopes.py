"""What a page's questions can be narrowed to: everything, groups, tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_calibration.decisions import Decision
from lm_eval_calibration.reports.names import task_name


def scopes(
    domains: Mapping[str, Sequence[str]], tasks: Sequence[str], decisions: Mapping[str, Decision]
) -> list[dict[str, Any]]:
    """Return domains and then the tasks that are none: name, label, indices of their tasks, and what was decided.

    Args:
        domains: name to the names of its tasks.
        tasks: of the run, in order.
        decisions: when the model may answer alone, by domain.
    """
    index = {task: i for i, task in enumerate(tasks)}
    alone = {task: (task,) for task in tasks if task not in domains}
    return [
        {
            "name": name,
            "label": task_name(name),
            "tasks": [index[task] for task in of_scope],
            "task": index.get(name),
            **_decided(decisions.get(name)),
        }
        for name, of_scope in {**domains, **alone}.items()
    ]


def _decided(decision: Decision | None) -> dict[str, float | None]:
    if decision is None:
        return {"threshold": None, "error_rate": None}
    return {"threshold": decision.groups[""].threshold.value, "error_rate": decision.wanted.error_rate}
