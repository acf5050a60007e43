"""Folders for programs: swept where their maker was killed, and removed however deep programs have nested them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "judged-"


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Make a folder, and remove it with all that is in it."""
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
    try:
        yield folder
    finally:
        remove(folder)


def sweep() -> None:
    """Remove the folders of processes that are gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        process = path.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            if process.isdecimal() and path.lstat().st_uid == os.geteuid() and not _is_alive(int(process)):
                remove(str(path))


def remove(folder: str) -> None:
    """Remove a folder, as far as this user can.

    Folders in it are first moved up to it, one after the other: a program can nest them deeper than a path is long, or
    Python recurses.
    """
    number, token = 0, os.urandom(8).hex()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        with suppress(OSError):
            os.chmod(here, 0o700)
        with suppress(OSError):
            for name in os.listdir(here):
                path = os.path.join(here, name)
                with suppress(OSError):
                    if os.path.islink(path) or not os.path.isdir(path):
                        os.unlink(path)
                    elif here == folder:
                        waiting.append(path)
                    else:
                        number += 1
                        os.chmod(path, 0o700)
                        os.rename(path, moved := os.path.join(folder, f"{token}-{number}"))
                        waiting.append(moved)
        if here != folder:
            with suppress(OSError):
                os.rmdir(here)
    with suppress(OSError):
        os.rmdir(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
