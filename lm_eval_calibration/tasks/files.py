"""Calibrated tasks as YAML files, for the stock command; and a list of what can be calibrated."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.harness.index import Index, entry_of, kind_of, read_index
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.records.files import write_all_whole, write_whole
from lm_eval_calibration.tasks.any_task import SUFFIX, calibrated
from lm_eval_calibration.tasks.calibrated_task import CalibratedTask
from lm_eval_calibration.tasks.configuration import CLASS, reason_unsupported
from lm_eval_calibration.tasks.options import KEY, NAMED_OPTIONS, merged
from lm_eval_calibration.tasks.variants import base_of, variant


def write_files(names: Iterable[str], directory: Path, include_path: Path | None = None) -> list[Path]:
    """Write the YAMLs of calibrated tasks, groups and all that they hold.

    Args:
        names: of tasks, groups or tags of the harness, or of ``include_path``; with or without ``_calibration``, also
            as variants (``<name>_p_true``, ``<name>_verbalized``, ``<name>_verbalized_1s``).
        directory: where to; made if it is not there. Files of the same names are replaced.
        include_path: directory of the user's own task YAMLs.

    Returns:
        The files, in the order of their names.

    Raises:
        TaskError: naming a task that is not there or can't be calibrated; then nothing is written.
        OutputError: naming the file that can't be written; none is then.
    """
    index = read_index(include_path)
    configs = {made: config for name in names for made, config in _configs(name, index).items()}
    texts = {_file_of(name, directory): _text(name, config) for name, config in sorted(configs.items())}
    write_all_whole(texts)
    return list(texts)


def _file_of(name: str, directory: Path) -> Path:
    if name != Path(name).name or "\\" in name or not name.isprintable():
        raise TaskError(f"the task {name!r} has a name that is no file's: it can't be written to {directory}")
    return directory / f"{name}.yaml"


def _configs(name: str, index: Index) -> dict[str, dict[str, Any]]:
    """Return the configurations behind a name, by their names."""
    base, infix = name.removesuffix(SUFFIX), None
    if base not in index and (split := base_of(base + SUFFIX)):
        base, infix = split[0].removesuffix(SUFFIX), split[1]
    if base in index:
        made = calibrated(base, index)
        for task, reason in made.left_out.items():
            logger.warning("%s leaves out %s, which can't be calibrated: %s", base + SUFFIX, task, reason)
        if infix is None:
            return made.configs
        entries = {name: entry_of(config, CalibratedTask) for name, config in made.configs.items()}
        return variant(base + SUFFIX, infix, {**index, **entries}).configs
    ours = read_index(task_configs(), include_defaults=False)
    if base + SUFFIX not in ours:
        raise TaskError(f"no task {base!r}{nearest(base, index)}")
    if infix is None:
        command = 'lm_eval run --include_path "$(lm-eval-calibration tasks)"'
        raise TaskError(f"{base}{SUFFIX} ships with this package: {command} finds it")
    return variant(base + SUFFIX, infix, {**index, **ours}).configs


def what_can_be_calibrated(include_path: Path | None = None) -> Iterator[tuple[str, str, str | None]]:
    """Yield name, kind (task, group, tag) and, where it can't be calibrated, the reason."""
    index = read_index(include_path)
    for name, entry in sorted(index.items()):
        reason = reason_unsupported(entry.cfg or {}) if kind_of(entry) == "task" else _why_no_group(name, index)
        yield name, kind_of(entry), reason


def _why_no_group(name: str, index: Index) -> str | None:
    try:
        calibrated(name, index)
    except TaskError as error:
        return str(error).removeprefix(f"{name} can't be calibrated: ")
    return None


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes the harness's ``!function`` tags."""


class Function(str):
    """The name of a function in a YAML."""


def write_task(config: Mapping[str, Any], directory: Path, comment: str) -> Path:
    """Write a calibrated task's YAML, with a comment at its head, and return its path."""
    path = directory / f"{config['task']}.yaml"
    write_whole(path, "".join(f"# {line}\n" for line in comment.splitlines()) + _text(config["task"], config))
    return path


_Dumper.add_representer(Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def _text(name: str, config: Mapping[str, Any]) -> str:
    data = {key: value for key, value in config.items() if key not in ("class", NAMED_OPTIONS)}
    if options := config.get(NAMED_OPTIONS):
        data["metadata"] = merged(data.get("metadata"), {KEY: options})
    if "task" in data and "group" not in data:
        data["class"] = Function(CLASS)
    try:
        text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    except yaml.YAMLError as error:
        raise TaskError(f"{name} can't be written: its group overrides a function ({error})") from error
    return text
