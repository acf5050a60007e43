"""The harness's own index of 14,000 tasks, read once by all tests of a process."""

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _stock_index_once() -> Iterator[None]:
    """Let the harness build the index of its own folder once, and copy it afterwards: 15 seconds become one."""
    from lm_eval.tasks import _index

    build, stock = _index.TaskIndex.build, Path(_index.__file__).parent
    kept: list[bytes] = []

    def build_once(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, Any]:
        first, *others = [*paths] or [None]
        if first != stock or not resolve_includes:
            return build([first, *others] if first else [], resolve_includes=resolve_includes)
        if not kept:
            kept.append(pickle.dumps(build([stock])))
        index = pickle.loads(kept[0])
        for name, entry in build(others).items():
            if name in index:
                message = "Task '%s' from %s overrides existing task from %s"
                _index.log.warning(message, name, entry.yaml_path, index[name].yaml_path)
            index[name] = entry
        return index

    _index.TaskIndex.build = staticmethod(build_once)
    yield
    _index.TaskIndex.build = staticmethod(build)
