"""The oldest and the newest versions that pyproject.toml allows, in lanes of their own. Opt-in: gigabytes, minutes.

    pip install uv
    LM_EVAL_CALIBRATION_LANES="oldest newest" python -m pytest tests/test_versions.py

A lane is a fresh environment that `uv` fills from the package registry with the lowest, or the highest, version of
everything that pyproject.toml names (`--resolution lowest-direct`). The registry's Linux builds of torch don't import
without their CUDA libraries, so a lane is some 3 GB to fetch and 6 GB on disk. lm-eval has one release within the
bounds so far (0.4.13), so both lanes, and every other run, have that one. Warnings of old versions about what is to
come are no failures here; in every other run they are.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]

LANES = {"oldest": "lowest-direct", "newest": "highest"}

EXTRAS = ("code", "recalibration", "report", "smece", "tuning")

# What touches other packages, where versions differ: models and their caches, the harness, data frames, pictures.
TESTS = [f"tests/backends/test_{name}.py" for name in ("hf", "generation", "packed", "corpus_scores", "models")]
TESTS += [f"tests/tasks/test_{name}.py" for name in ("calibrated_task", "generation_task", "p_true", "registration")]
TESTS += ["tests/recalibration", "tests/reports/report/test_report.py", "tests/metrics/test_metrics_definitions.py"]
TESTS += ["tests/tuning/test_loss.py"]


def bounds() -> dict[str, str]:
    """Each dependency's lower bound."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    found = {}
    for requirement in (Requirement(text) for group in groups for text in group):
        (found[requirement.name],) = (part.version for part in requirement.specifier if part.operator == ">=")
    return found


def test_every_dependency_has_one_lower_bound() -> None:
    assert {"torch", "transformers", "lm-eval", "peft"} <= set(bounds())


def test_the_lanes_tests_are_there() -> None:
    assert [path for path in TESTS if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("lane", LANES)
def test_everything_passes_with(lane: str, tmp_path: Path) -> None:
    if lane not in os.environ.get("LM_EVAL_CALIBRATION_LANES", "").split():
        pytest.skip(f"the lane {lane} needs the package registry (set LM_EVAL_CALIBRATION_LANES={lane})")
    if not shutil.which("uv"):
        pytest.skip(f"the lane {lane} needs `pip install uv`")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    wanted = [f".[{','.join(EXTRAS)}]", "lm-eval[api]", "gguf>=0.10", "pytest>=8", "hypothesis>=6.100"]
    install = ["uv", "pip", "install", "--quiet", "--python", str(python), "--resolution", LANES[lane], *wanted]
    subprocess.run(install, cwd=REPOSITORY, check=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    code = f"from importlib.metadata import version\nfor name in {list(bounds())}: print(name, version(name))"
    told = subprocess.run([str(python), "-c", code], env=environment, capture_output=True, text=True, check=True)
    versions = dict(line.split() for line in told.stdout.splitlines())
    print(versions)
    if lane == "oldest":
        for name, bound in bounds().items():
            assert re.fullmatch(re.escape(bound) + r"(\.0)*", versions[name]), (name, versions[name])
    tests = [str(python), "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    tests += ["-m", "not real_model and not real_data", *TESTS]
    done = subprocess.run(tests, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout.splitlines()[-1])
