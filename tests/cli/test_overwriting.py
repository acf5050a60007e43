"""No command writes over its input, and `tasks --for` writes nowhere but to its folder."""

import shutil
from pathlib import Path

import pytest
from commands import run_command
from made_runs import write_run
from users_tasks import make_rows, write_task


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
