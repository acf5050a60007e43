"""Files that are there whole or not at all: the one place that writes what somebody may read later."""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lm_eval_calibration.errors import OutputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one beside it, and the folders above it.

    Raises:
        OutputError: naming the file that can't be written.
    """
    write_all_whole({path: content})


def write_all_whole(contents: Mapping[Path, str | bytes]) -> None:
    """Write files, all of them or none: they get their names when the last one is on the disk.

    Raises:
        OutputError: naming the file that can't be written.
    """
    path = Path()
    try:
        with ExitStack() as files:
            for path, content in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = files.enter_context(whole_file(path))
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name where nothing goes wrong; else there is what was there before.

    What is no regular file (a terminal, a pipe, /dev/null) is written to as it is.

    Raises:
        OSError: the file can't be written.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with path.open("wb") as file:
            yield file
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)  # a full disk may be told of only here
        os.chmod(name, _mode(path))
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def check_writable(folder: Path) -> None:
    """Make a folder and write a file in it, which is taken away again.

    Raises:
        OutputError: naming the folder.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{folder} can't be written to: {error.strerror or error}") from error
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _mode(path: Path) -> int:
    """Permissions that the file has, or that a new one gets; temporary files are for their owner alone."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
