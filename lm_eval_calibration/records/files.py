"""Files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path

from lm_eval_calibration.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one beside it, and the folders above it.

    Raises:
        UserError: naming the file that can't be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(name, _mode(path))
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error


def _mode(path: Path) -> int:
    """Permissions that the file has, or that a new one gets; temporary files are for their owner alone."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
