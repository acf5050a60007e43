"""Reading JSON lines, plain or compressed, or the entries of a JSON array, with file and line in every error."""

import json
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import jsonlines
import numpy as np
import orjson
from numpy.typing import NDArray

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""Codecs by the bytes that their files begin with."""

_LFS = b"version https://git-lfs.github.com/spec/"
_NEWLINE = ord("\n")
_BOM = b"\xef\xbb\xbf"
_IN_MEMORY = 64 * 1024 * 1024
"""Bytes of a decompressed file that are kept in memory; more go to a temporary file."""

_BUFFER = 1024 * 1024
"""Bytes that are read at a time; with the few that Python reads by itself, lines take three times as long."""

_PART = 16 * 1024 * 1024
"""Bytes of a large file that a process decodes at a time."""


class Part(NamedTuple):
    """Bytes [start, end) of a file; the lines that begin there are its own."""

    start: int
    end: int


class JsonLines:
    """A file of JSON values: one a line, or the entries of one array, plain or compressed by gzip or zstd.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._is_array = False
        self._is_plain = False
        self._starts: NDArray[np.int64] | None = None

    def blocks(self, size: int = 1024) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the lines, so many at a time, behind the number of the first; raise ValueError naming file and line."""
        number = 1
        with self.opened() as file:
            while True:
                try:
                    lines = list(islice(file, size))
                except OSError as error:
                    raise ValueError(f"{self.where(number)}: {error.strerror or error}") from error
                if not lines:
                    return
                if written := _up_to_blanks(lines):
                    yield number, written
                number += len(lines)

    def parts(self) -> list[Part]:
        """Return some megabytes each of a large file of plain lines; of any other file nothing."""
        try:
            with self.opened():
                pass
            size = self.path.stat().st_size
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror or error}") from error
        if not self._is_plain or size < 4 * _PART:
            return []
        return [Part(start, min(start + _PART, size)) for start in range(0, size, _PART)]

    def blocks_of(self, part: Part, number: int, size: int = 1024) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the lines that begin in a part, as :meth:`blocks` does; ``number`` is that of the first."""
        with self.path.open("rb", _BUFFER) as file:
            if part.start:
                file.seek(part.start - 1)
                file.readline()  # the line that begins before
            at = file.tell()
            while at < part.end:
                lines: list[bytes] = []
                while at < part.end and len(lines) < size and (line := file.readline()):
                    lines.append(line)
                    at += len(line)
                if not lines:
                    return
                if written := _up_to_blanks(lines):
                    yield number, written
                number += len(lines)

    def values(self, number: int, lines: Sequence[bytes]) -> Iterator[Any]:
        """Yield what is in some lines, the first of which has this number.

        Raises:
            ValueError: naming file and line: not JSON, or cut short.
        """
        reader = jsonlines.Reader(lines, loads=loads)
        for place, text in enumerate(lines):
            try:
                yield reader.read(allow_none=True)
            except jsonlines.InvalidLineError as error:
                is_cut = not text.endswith(b"\n") and text.lstrip()[:1] == b"{"
                what = ", cut short" if is_cut else ""
                raise ValueError(f"{self.where(number + place)}: not JSON{what} ({error.__cause__})") from error

    def values_of(self, rows: Sequence[int]) -> Iterator[Any]:
        """Yield what is in some lines; rows count from 0."""
        with self.opened() as file:
            if self._starts is None:
                self._starts = _starts(file)
            for row in rows:
                file.seek(int(self._starts[row]))
                yield next(self.values(row + 1, [file.readline()]))

    def where(self, number: int) -> str:
        """Return file and line as messages name them."""
        return f"{self.path}, {'entry' if self._is_array else 'line'} {number}"

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the lines, decompressed; raise ValueError naming a file that holds none."""
        try:
            head = head_of(self.path)
            codec = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
            file = self.path.open("rb", _BUFFER) if codec is None else _decompressed(self.path, codec)
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror or error}") from error
        with file:
            file.seek(0)
            has_mark = file.read(len(_BOM)) == _BOM
            file.seek(len(_BOM) if has_mark else 0)
            self._is_array = file.read(64).lstrip().startswith(b"[")
            file.seek(len(_BOM) if has_mark else 0)
            self._is_plain = codec is None and not self._is_array and not has_mark
            if not self._is_array and not has_mark:
                yield file
                return
            with _as_lines(self.path, file) if self._is_array else _spooled(file.read()) as lines:
                yield lines


def _up_to_blanks(lines: list[bytes]) -> list[bytes]:
    """The same without the blank lines in which files may end."""
    n_lines = len(lines)
    while n_lines and lines[n_lines - 1].isspace():
        n_lines -= 1
    return lines[:n_lines] if n_lines < len(lines) else lines


def _starts(file: IO[bytes]) -> NDArray[np.int64]:
    """First byte of each line."""
    ends, start = [], 0
    file.seek(0)
    while block := file.read(1 << 22):
        ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + start + 1)
        start += len(block)
    return np.concatenate([[0], *ends])


def head_of(path: Path, size: int = 512) -> bytes:
    """Return the first bytes of a regular file.

    Raises:
        OSError: it can't be read.
        ValueError: it is no regular file, or only a Git LFS pointer to it.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: not a regular file")
    with path.open("rb") as file:
        head = file.read(size)
    if head.startswith(_LFS):
        raise ValueError(f"{path}: Git LFS pointer: run `git lfs pull`")
    return head


def decompressed_head(path: Path, size: int = 512) -> bytes:
    """Return the first bytes of what a file holds; raise as :func:`head_of` does."""
    head = head_of(path, size)
    codec = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if codec is None:
        return head.removeprefix(_BOM)
    import pyarrow as pa

    with pa.input_stream(str(path), compression=codec) as stream:
        return cast(bytes, stream.read(size))


def read(path: str | Path) -> Iterator[Any]:
    """Yield the value of each line; raise as :meth:`JsonLines.values` does."""
    file = JsonLines(path)
    return (value for number, lines in file.blocks() for value in file.values(number, lines))


def loads(text: str | bytes) -> Any:
    """Parse JSON; docs may hold the bare NaN that Python writes and half a surrogate pair, which strict JSON has not.

    Raises:
        ValueError: no JSON, or nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(text)
            raw = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
            return _printable(value) if b"\\ud" in raw.lower() else value
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _printable(value: Any) -> Any:
    """The same, halves of surrogate pairs, which no file can hold, written as escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(entry) for name, entry in value.items()}
    return value


def _decompressed(path: Path, codec: str) -> IO[bytes]:
    import pyarrow as pa

    file = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  # the caller's
    try:
        with pa.input_stream(str(path), compression=codec) as stream:
            while block := stream.read(1 << 20):
                file.write(block)
    except OSError:
        file.close()
        raise
    return file


def _as_lines(path: Path, file: IO[bytes]) -> IO[bytes]:
    """The entries of an array, one a line; raise ValueError naming a file that is no array."""
    try:
        entries = loads(file.read())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    return _spooled(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))


def _spooled(content: bytes) -> IO[bytes]:
    file = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  # the caller's
    file.write(content)
    file.seek(0)
    return file
