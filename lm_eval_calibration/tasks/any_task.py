"""``<name>_calibration`` for any task, group or tag that the harness knows: index entries made from its own.

A calibrated task is three keys (its name, the task it is made of, our class). A calibrated group holds the calibrated
tasks of the group and pools them; a tag asked for by its name becomes such a group.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.index import Index, kind_of, members_of
from lm_eval_calibration.harness.stock import is_stock, read_yaml
from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.metrics import CORE, CORPUS_CATALOG
from lm_eval_calibration.records.display import some
from lm_eval_calibration.tasks.configuration import ROLLING, reason_unsupported

SUFFIX = "_calibration"


@dataclass
class Calibrated:
    """What a calibrated name stands for.

    Attributes:
        configs: for each calibrated task and group, children first, the keys of its YAML (without the class).
        left_out: tasks that can't be calibrated, with the reason.
        left_out_of: the same of each calibrated group, by its name.
    """

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    left_out_of: dict[str, dict[str, str]] = field(default_factory=dict)


def calibrated(name: str, index: Index) -> Calibrated:
    """Return the configurations behind ``<name>_calibration``.

    Args:
        name: a task, group or tag of the index.
        index: the harness's index of tasks, functions unresolved.

    Raises:
        TaskError: the task can't be calibrated, or no task of the group, or not all of a group whose numbers the
            harness pools (a pool of fewer tasks is another number); it names tasks and reasons.
    """
    result = Calibrated()
    if kind_of(index[name]) == "tag":
        _add_tag(name, index, result)
    else:
        _add(name, index, result)
    if name + SUFFIX not in result.configs:
        reasons = _first_reasons(result.left_out).removeprefix(f"{name}: ")
        raise TaskError(f"{name} can't be calibrated: {reasons}")
    return result


def _first_reasons(left_out: Mapping[str, str]) -> str:
    return some([f"{task}: {reason}" for task, reason in left_out.items()], between="; ")


def is_users_own(name: str, index: Index) -> bool:
    """Whether a user's task has the name of one of the harness's that we ship a calibrated file for."""
    base, ours = index.get(name), index.get(name + SUFFIX)
    return (
        base is not None
        and base.yaml_path is not None
        and not is_stock(base.yaml_path)
        and ours is not None
        and ours.yaml_path is not None
        and ours.yaml_path.is_relative_to(task_configs())
    )


def _add(name: str, index: Index, result: Calibrated) -> bool:
    """Add a task or a group; say whether it can be calibrated."""
    if name + SUFFIX in result.configs:
        result.left_out |= result.left_out_of.get(name + SUFFIX, {})
        return True
    if name + SUFFIX in index and not is_users_own(name, index):
        result.configs[name + SUFFIX] = dict(index[name + SUFFIX].cfg or {})
        return True
    entry = index[name]
    if kind_of(entry) == "group":
        config = read_yaml(entry.yaml_path, resolve=True) if entry.yaml_path else dict(entry.cfg or {})
        return _add_group(config, index, result)
    if reason := reason_unsupported(entry.cfg or {}):
        result.left_out[name] = reason
        return False
    stock = name if entry.yaml_path is None or is_stock(entry.yaml_path) else str(entry.yaml_path.resolve())
    result.configs[name + SUFFIX] = {"task": name + SUFFIX, "stock_task": stock}
    return True


def _add_group(config: Mapping[str, Any], index: Index, result: Calibrated) -> bool:
    before, result.left_out = result.left_out, {}  # what another group left out is missing here as well
    renamed = _group(config, index, result)
    lost = result.left_out_of[renamed["group"]] = result.left_out
    result.left_out = before | lost
    if lost and renamed["task"] and config.get("aggregate_metric_list"):
        names = ",".join(child if isinstance(child, str) else next(iter(child.values())) for child in renamed["task"])
        raise TaskError(
            f"{config['group']} pools its tasks' numbers, and {len(lost)} of its tasks can't be calibrated "
            f"({_first_reasons(lost)}). These can: --tasks {names}"
        )
    if not renamed["task"]:
        return False
    result.configs[renamed["group"]] = renamed
    return True


def _group(config: Mapping[str, Any], index: Index, result: Calibrated) -> dict[str, Any]:
    """Return a group's keys with every name in it calibrated; its tasks' overrides stay."""
    members = config.get("task") or []
    children = [
        child
        for member in (members if isinstance(members, list) else [members])
        for child in _children(config["group"], member, index, result)
    ]
    renamed = {key: value for key, value in config.items() if key not in ("group_alias", "tag")}
    renamed |= {"group": config["group"] + SUFFIX, "task": children}
    if listed := config.get("aggregate_metric_list"):
        entries = [listed] if isinstance(listed, Mapping) else list(listed)
        names = [entry["metric"] for entry in entries]
        bases = [child.removesuffix(SUFFIX) for child in children if isinstance(child, str)]
        are_corpora = len(bases) == len(children) and all(_is_corpus(base, index) for base in bases)
        renamed["aggregate_metric_list"] = [
            *entries,
            *_pooled(list(CORPUS_CATALOG) if are_corpora else ["acc", *CORE], names),
        ]
    return renamed


def _children(group: str, member: Any, index: Index, result: Calibrated) -> Iterable[Any]:
    """Yield what stands in a calibrated group for a member of the group: nothing, one child, or a tag's tasks."""
    if isinstance(member, str):
        member = {"task": member}
    overrides = {key: value for key, value in member.items() if key not in ("task", "group", "task_alias")}
    name = member.get("group") or member.get("task")
    if "group" in member and name not in index:  # a group defined inside its parent
        inline = _group(member, index, result)
        if inline["task"]:
            yield {**inline, "group": name}
        return
    if name not in index:
        raise TaskError(f"the group {group} names a task {name!r} that has no file of its own: give it one")
    for child in members_of(index[name]) if kind_of(index[name]) == "tag" else [name]:
        if _add(child, index, result):
            key = "group" if kind_of(index[child]) == "group" else "task"
            yield {key: child + SUFFIX, **overrides} if overrides else child + SUFFIX


def _add_tag(tag: str, index: Index, result: Calibrated) -> None:
    tasks = [task for task in members_of(index[tag]) if task in index and _add(task, index, result)]
    corpora = [task for task in tasks if _is_corpus(task, index)]
    if 0 < len(corpora) < len(tasks):
        tasks = [task for task in tasks if task not in corpora]
        for task in corpora:
            del result.configs[task + SUFFIX]
            result.left_out[task] = "texts and questions have no metric in common; ask for it by its name"
    if tasks:
        shared = ["acc_norm"] if all("acc_norm" in _listed(index[task].cfg or {}) for task in tasks) else []
        metrics = list(CORPUS_CATALOG) if _is_corpus(tasks[0], index) else ["acc", *shared, *CORE]
        name = tag + SUFFIX
        result.configs[name] = {
            "group": name,
            "task": [task + SUFFIX for task in tasks],
            "aggregate_metric_list": _pooled(metrics, []),
        }


def _is_corpus(name: str, index: Index) -> bool:
    return (index[name].cfg or {}).get("output_type") == ROLLING if name in index else False


def _listed(config: Mapping[str, Any]) -> list[Any]:
    """Return the names of a task's metrics."""
    entries = config.get("metric_list")
    return DEFAULT_METRIC_REGISTRY["multiple_choice"] if entries is None else [e.get("metric") for e in entries]


def _pooled(metrics: Sequence[str], listed: Sequence[str]) -> list[dict[str, Any]]:
    return [{"metric": metric, "weight_by_size": True} for metric in metrics if metric not in listed]
