"""Ways to load models that no device can hold: the numbers of the same model on one device.

Weights of 4 and 8 bits are in test_models.py, FSDP in test_ranks.py, two devices in test_simulated_device.py.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import large_models
import pytest

from lm_eval_calibration.backends.hf import corpus

KINDS = ("shared True", "shared False", "corpus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    large_models.save(path)
    return path


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """The same model on one device, its corpus in chunks of 50 positions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(corpus._CHUNK_ELEMENTS, "cpu", 50 * 258)
        return large_models.answers(large_models.load(folder))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for kind in KINDS:
        assert found[kind] == pytest.approx(expected[kind], rel=1e-6, abs=1e-4)


def test_layers_that_accelerate_loads_as_they_are_needed(
    folder: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`parallelize=True`, which is `device_map="auto"`: without a GPU all layers are on the disk."""
    monkeypatch.setitem(corpus._CHUNK_ELEMENTS, "cpu", 50 * 258)
    lm = large_models.load(folder, parallelize=True, offload_folder=str(tmp_path))
    assert {weight.device.type for weight in lm.model.parameters()} == {"meta"}
    found = large_models.answers(lm)
    assert_equal(found, expected)
    assert found["most positions"] == expected["most positions"] == 50


@pytest.mark.slow
def test_tensor_parallel_on_two_ranks(folder: Path, expected: dict[str, Any], python: list[str]) -> None:
    command = [*python, str(Path(large_models.__file__)), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    assert_equal(found, expected)
    assert found["most positions"] == 50
