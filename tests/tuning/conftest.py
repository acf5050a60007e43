"""A tiny model in a folder, tasks to learn from, and a finished run on each of them."""

from pathlib import Path

import pytest
from tiny import make_gpt2, make_tokenizer
from tuning_runs import tune, write_open_task
from users_tasks import SHAPES, make_rows, write_task


@pytest.fixture(scope="session", autouse=True)
def _needs_the_extra() -> None:
    for package in ("peft", "accelerate"):
        pytest.importorskip(package, reason=f"tuning needs {package} (extra `tuning`)")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of random weights with a tokenizer of bytes, as saved by transformers."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    make_gpt2(tokenizer, n_positions=512).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task `trees`: 80 docs with four choices each."""
    folder = tmp_path_factory.mktemp("trees")
    write_task(folder, "trees", make_rows(80), **SHAPES["letters"])
    return folder


@pytest.fixture(scope="session")
def open_trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task `trees` of 60 docs, to which the model writes answers."""
    folder = tmp_path_factory.mktemp("open_trees")
    write_open_task(folder)
    return folder


@pytest.fixture(scope="session")
def tuned(model_folder: Path, trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on choices."""
    output = tmp_path_factory.mktemp("tuned") / "adapter"
    printed = tune(model_folder, trees, output, "--epochs", "2", "--learning_rate", "0.01")
    assert "test it on the docs that it has not learned from" in printed
    return output


@pytest.fixture(scope="session")
def tuned_on_open(model_folder: Path, open_trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on answers that the model writes."""
    output = tmp_path_factory.mktemp("tuned_on_open") / "adapter"
    printed = tune(model_folder, open_trees, output, "--epochs", "2", "--learning_rate", "0.1")
    assert "neither right nor wrong, left out" in printed
    return output
