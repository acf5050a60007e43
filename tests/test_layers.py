"""Imports go down only: cli, demo > tasks, recalibrate > records > columns, scoring, recalibration > metrics."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lm_eval_calibration"

# What each room may import of the others.
ALLOWED = {
    "metrics": set(),
    "directory": set(),
    "errors": set(),
    "judge": {"errors"},
    "output": {"errors"},
    "scoring": {"metrics", "errors"},
    "asked": set(),
    "corpora": set(),
    "columns": {"metrics", "corpora"},
    "generations": set(),
    "records": {"asked", "columns", "corpora", "generations", "temperatures"},
    "temperatures": set(),
    "comparison": {"metrics", "columns", "records"},
    "recalibration": {"metrics"},
    "diagrams": {"metrics", "errors", "output"},
    "verdicts": {"metrics"},
    "runs": {"metrics", "columns", "records", "recalibration", "diagrams", "errors"},
    "compare": {"metrics", "records", "comparison", "runs", "output", "errors", "__init__"},
    "drift": {"metrics", "comparison", "runs", "output", "errors"},
    "evidence": {"metrics", "records", "comparison", "runs", "output", "errors", "__init__"},
    "export": {"metrics", "records", "comparison", "runs", "output", "errors", "__init__"},
    "recalibrate": {"metrics", "records", "runs", "recalibration", "errors"},
    "tasks": {
        *(
            "asked",
            "columns",
            "corpora",
            "directory",
            "errors",
            "generations",
            "judge",
            "metrics",
            "recalibration",
            "records",
        ),
        *("scoring", "temperatures"),
    },
    "confidences": {"metrics", "records", "recalibration", "runs", "diagrams", "output", "errors"},
    "tuning": {"metrics", "scoring", "tasks", "output", "errors", "__init__"},
    "report": {"metrics", "records", "recalibration", "runs", "diagrams", "verdicts", "output", "errors", "__init__"},
    "demo": {"metrics", "records", "tasks", "verdicts", "errors"},
    "check": {"metrics", "columns", "records", "tasks", "demo", "errors"},
    "cli": {
        *(
            "check",
            "tasks",
            "demo",
            "recalibrate",
            "report",
            "compare",
            "drift",
            "evidence",
            "export",
            "tuning",
            "confidences",
        ),
        *("directory", "errors"),
    },
    "__main__": {"cli"},
    "__init__": {"tasks", "runs"},  # imported when it is asked for
}

# Where heavy packages may be named at all.
ONLY_IN = {
    "torch": {"scoring", "tuning"},
    "transformers": {"scoring", "tuning"},
    "peft": {"tuning"},
    "accelerate": {"tuning"},
    "lm_eval": {"scoring", "tasks", "demo", "check", "tuning"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_rule() -> None:
    assert {room(path) for path in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    here = room(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("lm_eval_calibration.")}
    rooms = {name for name in ours if name in ALLOWED}
    assert rooms - {here} <= ALLOWED[here]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    named = {name.split(".")[0] for name in imports(path)}
    for package, rooms in ONLY_IN.items():
        assert package not in named or room(path) in rooms


def test_the_rule_sees_a_violation(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("from lm_eval_calibration import tasks\nimport torch\n", encoding="utf-8")
    assert {"lm_eval_calibration.tasks", "torch"} <= imports(module)
