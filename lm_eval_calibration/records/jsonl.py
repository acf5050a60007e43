"""JSON lines: every file of them is read and written here."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import jsonlines
import orjson


def read(path: str | Path) -> Iterator[Any]:
    """Yield the value of each line; raise as :func:`read_from` does."""
    return (value for _, _, value in read_from(path))


def read_from(path: str | Path, start: int = 0) -> Iterator[tuple[int, int, Any]]:
    """Yield the lines of a file: number (from 1), first byte and value.

    Args:
        path: of the file.
        start: first byte of the line to begin with, which then is number 1.

    Raises:
        ValueError: naming file and line: not JSON, or cut short.
    """
    with open(path, "rb") as file:
        file.seek(start)
        text = b""

        def lines() -> Iterator[bytes]:
            nonlocal text
            for line in file:
                text = line
                yield line

        reader = jsonlines.Reader(lines(), loads=_loads)
        for number in count(1):
            try:
                value = reader.read(allow_none=True)
            except EOFError:
                return
            except jsonlines.InvalidLineError as error:
                is_cut = not text.endswith(b"\n") and text.lstrip()[:1] == b"{"
                what = ", cut short" if is_cut else ""
                raise ValueError(f"{path}, line {number}: not JSON{what} ({error.__cause__})") from error
            yield number, start, value
            start += len(text)


def to_bytes(values: Iterable[Any]) -> bytes:
    """Return the content of a file that has a line for each of the values."""
    content = BytesIO()
    with jsonlines.Writer(content, dumps=orjson.dumps) as writer:
        writer.write_all(values)
    return content.getvalue()


def _loads(text: str | bytes) -> Any:
    """Parse a line; docs may hold the bare NaN that Python writes and strict JSON does not know."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
