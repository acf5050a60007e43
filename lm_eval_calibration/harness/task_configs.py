"""Where the task YAMLs lie."""

from pathlib import Path


def task_configs() -> Path:
    """Return the directory of our task YAMLs, for ``--include_path``."""
    package = Path(__file__).parents[1]
    # A wheel carries it inside the package; an editable install leaves it at the top of the repository.
    for directory in (package / "task_configs", package.parent / "task_configs"):
        if directory.is_dir():
            return directory
    raise FileNotFoundError(f"task_configs is neither in {package} nor beside it: the installation is incomplete")


def task_names() -> tuple[list[str], list[str]]:
    """Return the names of our groups and of our tasks, sorted."""
    names: dict[str, list[str]] = {"group": [], "task": []}
    for path in sorted(task_configs().rglob("*.yaml")):
        key, _, name = path.read_text(encoding="utf-8").partition("\n")[0].partition(": ")
        names[key].append(name)
    return sorted(names["group"]), sorted(names["task"])
