"""A tiny model in a folder, and tasks to learn from."""

from pathlib import Path

import pytest
from tiny import make_gpt2, make_tokenizer
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
