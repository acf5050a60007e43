"""The rooms of the package: imports go down only and in no circle; heavy and private names stay where they belong."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from source_files import parse

PACKAGE = Path(__file__).parents[1] / "lm_eval_calibration"

ROOMS = (
    *("__main__", "cli", "demo", "tuning", "reports", "tasks", "results", "harness", "plots", "decisions"),
    *("recalibration", "backends", "records", "code_judge", "metrics", "errors", "__init__"),
)
"""From the top down. The package's own ``__init__`` gives its version to all, and imports rooms only when used."""

ONLY_IN = {
    "torch": {"backends", "tuning"},
    "transformers": {"backends", "tuning"},
    "peft": {"tuning"},
    "accelerate": {"tuning"},
    "lm_eval": {"backends", "harness", "tasks", "tuning", "demo", "cli"},
}
"""Where heavy packages may be named at all."""

PRIVATE_OF_LM_EVAL = {"backends", "harness"}


def modules(package: Path) -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


def imports(path: Path) -> Iterator[str]:
    """Everything that a module imports, anywhere in it, with the imported name behind its module's."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges(package: Path) -> dict[str, set[str]]:
    """Each module and those of the package that it imports."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        found[module] = set()
        for name in imports(path):
            if name.partition(".")[0] == package.name:
                below = name.removeprefix(package.name).removeprefix(".")
                target = below if below in known else below.rpartition(".")[0] or "__init__"
                found[module].add(target if target in known else "__init__")
        found[module] -= {module}
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in sorted(targets)
        if module != "__init__" and ROOMS.index(room(target)) < ROOMS.index(room(module))
    ]


def test_every_room_is_known() -> None:
    assert {room(module) for module in modules(PACKAGE)} == set(ROOMS)


def test_imports_go_down_only() -> None:
    assert upward(edges(PACKAGE)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = edges(PACKAGE)
    graph["__init__"] = set()  # imports `calibrated` and `load_run` when they are used
    TopologicalSorter(graph).prepare()


def test_heavy_and_private_names_stay_in_their_rooms() -> None:
    wrong = []
    for module, path in modules(PACKAGE).items():
        for name in imports(path):
            parts = name.split(".")
            if room(module) not in ONLY_IN.get(parts[0], {room(module)}):
                wrong.append(f"{module} imports {name}")
            private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
            if parts[0] == "lm_eval" and private and room(module) not in PRIVATE_OF_LM_EVAL:
                wrong.append(f"{module} imports the private {name}")
    assert wrong == []


def test_the_rules_see_violations(tmp_path: Path) -> None:
    package = tmp_path / "lm_eval_calibration"
    for module in ("metrics/a", "metrics/b", "tasks/c"):
        (package / module).parent.mkdir(parents=True, exist_ok=True)
    (package / "metrics/a.py").write_text("def f():\n    from lm_eval_calibration.metrics import b\n", encoding="utf-8")
    (package / "metrics/b.py").write_text("from lm_eval_calibration.metrics.a import f\n", encoding="utf-8")
    (package / "tasks/c.py").write_text("import torch\n", encoding="utf-8")
    graph = edges(package)
    assert graph["metrics.a"] == {"metrics.b"}
    assert graph["metrics.b"] == {"metrics.a"}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
    assert upward({"metrics.a": {"tasks.c"}}) == ["metrics.a imports tasks.c"]
