"""The harness's index of its own tasks and of ours, built once for all processes of a test run.

Building it takes 8 s of a processor, and reading it a third of one.
"""

import gc
import hashlib
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def built_once(folder: Path) -> Iterator[None]:
    """Let the harness read the YAMLs that are installed once, and copy the index that it makes of them.

    folder: of this test run, the same for all of its processes.
    """
    from filelock import FileLock
    from lm_eval.tasks import _index

    from lm_eval_calibration.harness.task_configs import task_configs

    build, kept = _index.TaskIndex.build, (Path(_index.__file__).parent, task_configs())

    def copied(path: Path, resolve_includes: bool) -> dict[str, Any]:
        name = hashlib.sha256(f"{path} {resolve_includes}".encode()).hexdigest()
        file = folder / f"index-{name}.pickle"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                (part := file.with_suffix(".part")).write_bytes(
                    pickle.dumps(build([path], resolve_includes=resolve_includes))
                )
                part.replace(file)
        with _no_garbage_collection():
            return dict(pickle.loads(file.read_bytes()))

    def build_once(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, Any]:
        index: dict[str, Any] = {}
        for path in paths:
            found = copied(path, resolve_includes) if path in kept else build([path], resolve_includes=resolve_includes)
            for name, entry in found.items():
                if name in index:
                    message = "Task '%s' from %s overrides existing task from %s"
                    _index.log.warning(message, name, entry.yaml_path, index[name].yaml_path)
                index[name] = entry
        return index

    _index.TaskIndex.build = staticmethod(build_once)
    yield
    _index.TaskIndex.build = staticmethod(build)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """It looks, in vain, through the 100,000 objects of the index again and again while they are read."""
    was_enabled = gc.isenabled()
    gc.disable()
    yield
    if was_enabled:
        gc.enable()
