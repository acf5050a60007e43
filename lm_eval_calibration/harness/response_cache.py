"""The file of ``--use_cache``: one that fills the disk or breaks costs its answers, not the run.

The harness keeps it by `sqlitedict`, whose thread dies of a full disk, and the run with it or never. The file's form is
that library's: a table ``unnamed`` of keys and pickled values.
"""

import pickle
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from functools import wraps
from pathlib import Path
from typing import Any

from lm_eval_calibration.harness.log import logger

TIMEOUT = 60.0
"""Seconds to wait for another process that writes to the same file."""


class ResponseCache(MutableMapping[str, Any]):
    """Responses by key, each on the disk when it is set; empty and deaf from the first error on.

    Args:
        path: the SQLite file, made where there is none.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Without a transaction of its own, each statement is one; any thread may ask, one at a time.
            connection = sqlite3.connect(path, TIMEOUT, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE IF NOT EXISTS unnamed (key TEXT PRIMARY KEY, value BLOB)")
            self._connection = connection
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        logger.error("The cache %s can't be used (%s): the run goes on without it.", self._path, error)
        self._connection = None

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return []

    def __getitem__(self, key: str) -> Any:
        for (value,) in self._rows("SELECT value FROM unnamed WHERE key = ?", key):
            return pickle.loads(bytes(value))
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return bool(self._rows("SELECT 1 FROM unnamed WHERE key = ?", key))

    def __setitem__(self, key: str, value: Any) -> None:
        self._rows("REPLACE INTO unnamed (key, value) VALUES (?, ?)", key, sqlite3.Binary(pickle.dumps(value, -1)))

    def __delitem__(self, key: str) -> None:
        self._rows("DELETE FROM unnamed WHERE key = ?", key)

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self._rows("SELECT key FROM unnamed ORDER BY rowid"))

    def __len__(self) -> int:
        return sum(n for (n,) in self._rows("SELECT count(*) FROM unnamed"))

    def commit(self) -> None:
        """Do nothing: all is on the disk."""

    def close(self) -> None:
        """Close the file; nothing is kept afterwards."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def with_response_cache(_: Callable[..., None]) -> Callable[..., None]:
    """Return an ``__init__`` of the harness's ``CachingLM`` that keeps responses in a :class:`ResponseCache`."""

    @wraps(_)
    def init(self: Any, lm: Any, cache_db: str) -> None:
        self.lm, self.cache_db, self.dbdict = lm, cache_db, ResponseCache(cache_db)
        lm.set_cache_hook(self.get_cache_hook())

    return init
