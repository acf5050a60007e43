"""Files that are there whole or not at all: the one place that writes what somebody may read later."""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lm_eval_calibration.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one beside it, and the folders above it.

    Raises:
        OutputError: naming the file that can't be written.
    """
    write_all_whole({path: content})


def write_all_whole(contents: Mapping[Path, str | bytes]) -> None:
    """Write files, all of them or none: they get their names when all are on the disk.

    Raises:
        OutputError: naming the file that can't be written.
    """
    path = Path()
    try:
        with ExitStack() as files:
            opened = []
            for path, content in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                opened.append(files.enter_context(_New(path)))
                opened[-1].file.write(content.encode("utf-8") if isinstance(content, str) else content)
                opened[-1].finish()
            for file in opened:
                path = file.path
                file.rename()
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name where nothing goes wrong; else there is what was there before.

    Raises:
        OSError: the file can't be written.
    """
    with _New(path) as new:
        yield new.file
        new.finish()
        new.rename()


class _New:
    """A file that has another name until it is whole; what is no regular file (a pipe, /dev/null) is written as it is.

    Attributes:
        path: the file, or what a link points to.
        file: to write to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve() if path.is_symlink() else path
        self._name: str | None = None
        self.file: BinaryIO
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            self.file = path.open("wb")
        else:
            descriptor, self._name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{path.name[:200]}.")
            self.file = os.fdopen(descriptor, "wb")

    def finish(self) -> None:
        """Let all be on the disk."""
        self.file.flush()
        if self._name is not None:
            os.fsync(self.file.fileno())  # a full disk may be told of only here
            os.chmod(self._name, _mode(self.path))
        self.file.close()

    def rename(self) -> None:
        """Give the file its name."""
        if self._name is not None:
            os.replace(self._name, self.path)
            self._name = None

    def __enter__(self) -> "_New":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.file.close()  # writes what is left, which may fail again
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Let one process at a time change a file, as far as the folder can be locked (not on Windows, say).

    Raises:
        OutputError: naming the file whose folder can't be made or opened.
    """
    folder = path.resolve().parent  # not the file itself, which is replaced
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error
    try:
        if descriptor is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # and the lock with it


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
