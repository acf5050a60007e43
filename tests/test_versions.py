"""The oldest versions that pyproject.toml allows, in lanes of their own. Opt-in: a lane asks the package registry.

    LM_EVAL_CALIBRATION_LANES="oldest-transformers" python -m pytest tests/test_versions.py

A lane is laid over the environment that the tests run in, which has the newest versions. lm-eval has one release within
the bounds so far, so every run is its lane; torch's lower bound is a download of gigabytes and has none.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]

LANES = {
    # what 4.56 wants of its own dependencies
    "oldest-transformers": ["transformers==4.56.0", "huggingface_hub>=0.34,<1", "tokenizers>=0.22,<0.23"],
}

# What touches models and their caches, where versions differ.
TESTS = [f"tests/scoring/test_{name}.py" for name in ("hf", "generation", "packed", "corpus_scores", "models")]


@pytest.mark.parametrize("lane", LANES)
def test_a_lane_is_the_lower_bound(lane: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]}
    pinned = Requirement(LANES[lane][0])
    (version,) = (part.version for part in pinned.specifier)
    (oldest,) = (part.version for part in bounds[pinned.name] if part.operator == ">=")
    assert version in (oldest, f"{oldest}.0")


@pytest.mark.parametrize("lane", LANES)
def test_models_are_scored_alike_with(lane: str, tmp_path: Path) -> None:
    if lane not in os.environ.get("LM_EVAL_CALIBRATION_LANES", "").split():
        pytest.skip(f"the lane {lane} needs the package registry (set LM_EVAL_CALIBRATION_LANES={lane})")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), *LANES[lane]]
    subprocess.run(pip, check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    name, version = LANES[lane][0].split("==")
    code = f"import {name}; print({name}.__version__)"
    seen = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == version
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not real_model", *TESTS]
    done = subprocess.run(pytest_command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
