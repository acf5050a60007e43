"""``<name>_p_true_calibration``, ``<name>_verbalized_calibration`` and the like: a task or group, asked how sure it is.

Each is ``<name>_calibration`` with one more option in it, and so is every task of a group of that name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.harness.index import Index, kind_of, members_of
from lm_eval_calibration.harness.stock import read_yaml
from lm_eval_calibration.tasks.any_task import SUFFIX, Calibrated
from lm_eval_calibration.tasks.confidences.registry import sources
from lm_eval_calibration.tasks.options import KEY, NAMED_OPTIONS


def _variants() -> dict[str, Mapping[str, Any]]:
    """Return what a name has before ``_calibration``, and the options that it stands for."""
    return {source.suffix: source.variant for source in sources() if source.variant is not None}


def base_of(name: str) -> tuple[str, str] | None:
    """Split the name of a variant: ``<name>_calibration`` and what stands between; None where it is no such name."""
    bare = name.removesuffix(SUFFIX)
    for infix in _variants():
        if name.endswith(SUFFIX) and bare.endswith(infix) and bare != infix:
            return bare.removesuffix(infix) + SUFFIX, infix
    return None


def variant(base: str, infix: str, index: Index) -> Calibrated:
    """Return the configurations behind the variant of a calibrated task or group.

    Args:
        base: ``<name>_calibration``; it and what it holds are in the index.
        infix: which variant.
        index: of tasks, groups and tags.
    """
    result = Calibrated()
    _add(base, infix, index, result)
    return result


def _add(base: str, infix: str, index: Index, result: Calibrated) -> str:
    """Add the variant of a task or group and of what it holds; return its name."""
    name = f"{base.removesuffix(SUFFIX)}{infix}{SUFFIX}"
    if name in result.configs or name in index:
        return name
    config = _config(index[base])
    if "group" in config:
        config |= {"group": name, "task": _children(config, infix, index, result)}
    else:
        own = (config.get("metadata") or {}).get(KEY) or {}
        config |= {"task": name, NAMED_OPTIONS: {**own, **(config.get(NAMED_OPTIONS) or {}), **_variants()[infix]}}
    result.configs[name] = config
    return name


def _children(group: Mapping[str, Any], infix: str, index: Index, result: Calibrated) -> list[Any]:
    """Return the members of a group, each as its variant; a tag's tasks one by one."""
    children: list[Any] = []
    for member in group["task"]:
        overrides = {} if isinstance(member, str) else dict(member)
        key = "group" if "group" in overrides else "task"
        name = overrides.get(key, member)
        if name not in index:  # a group defined inside its parent
            inner = {"group": f"{name}{infix}", "task": _children(overrides, infix, index, result)}
            children.append({**overrides, **inner})
            continue
        for base in members_of(index[name]) if kind_of(index[name]) == "tag" else [name]:
            child = _add(base, infix, index, result)
            children.append({**overrides, key: child} if overrides else child)
    return children


def _config(entry: Any) -> dict[str, Any]:
    """Return the keys of a calibrated task or group; a path in them as seen from anywhere."""
    if entry.yaml_path is None:
        return dict(entry.cfg or {})
    config = {key: value for key, value in read_yaml(entry.yaml_path, resolve=True).items() if key != "tag"}
    stock_task = config.get("stock_task")
    if isinstance(stock_task, str) and stock_task.endswith(".yaml"):
        config["stock_task"] = str((entry.yaml_path.parent / Path(stock_task).expanduser()).resolve())
    return config
