"""Real files, changed anywhere: true numbers, or one line that names the place; never a traceback or half a file.

A file that once did worse is added to ``FOUND`` by its seed.
"""

import copy
import json
import math
import pickle
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from logged_runs import TIME, make_generated_lines, make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import definition
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, undefined_estimate

TASKS = {
    "choices_calibration": make_lines("choices_calibration", n=8),
    "written_calibration": make_generated_lines("written_calibration", n=8, empty=1),
    "stock": [
        {key: value for key, value in line.items() if key not in ("calibration", "doc_hash")}
        | {"doc_hash": f"stock {i}"}
        for i, line in enumerate(make_lines("stock", n=8))
    ],
}

PICKLED_TASKS = pickle.dumps(TASKS)  # loading them is a copy that takes a tenth of copy.deepcopy's time

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 10**9, 10**40, -0.0, 0.5, 1.5, -3.25, 1e308, 1e-320),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        "x",
        "nan",
        "1",
        "\x00",
        "\ud800",
        "\u202e",
        "a\n::set-env",
        "=1+1",
        "../../x",
    ),
    *([], {}, [None] * 4, [[[]]], {"a": {"a": {}}}, [1.5] * 5, ["x"], {"version": 99}),
)
"""What takes the place of a value: every type, the edges of numbers, and texts that other languages read as code."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places within a JSON value, itself left out."""
    found: list[tuple[Any, ...]] = []
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        found += [(*path, key), *places(one, (*path, key))]
    return found


def mutate(value: Any, rng: random.Random) -> None:
    """Delete, replace, double or deepen something within a JSON value."""
    *path, last = rng.choice(places(value))
    parent = value
    for key in path:
        parent = parent[key]
    what = rng.choice(("replace", "replace", "replace", "delete", "double", "nest"))
    if what == "delete":
        del parent[last]
    elif what == "double" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif what == "nest":
        nested: Any = parent[last]
        for _ in range(rng.choice((1, 3, 400))):
            nested = [nested]
        parent[last] = nested
    else:
        parent[last] = copy.deepcopy(rng.choice(VALUES))


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut, fill or change a file's bytes."""
    if not content:
        return b"{"
    at = rng.randrange(len(content))
    return rng.choice(
        (
            content[:at],
            content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
            content[:at] + b"\xff\xfe" + content[at:],
            content + content[: at // 2],
            b"\xef\xbb\xbf" + content,
            content.replace(b"\n", b"\r\n"),
            content.rstrip(b"\n"),
            b"",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        )
    )


def write_changed(folder: Path, seed: int) -> None:
    """Write a run with one to three changes that the seed says."""
    rng = random.Random(seed)
    tasks = pickle.loads(PICKLED_TASKS)
    kept = rng.sample(sorted(tasks), rng.randint(1, len(tasks)))
    tasks = {task: tasks[task] for task in kept}
    for _ in range(rng.randint(1, 3)):
        lines = tasks[rng.choice(kept)]
        how = rng.random()
        if how < 0.75:
            mutate(lines[rng.randrange(len(lines))], rng)
        elif how < 0.85:
            lines.insert(rng.randrange(len(lines)), copy.deepcopy(rng.choice(lines)))
        elif len(lines) > 1:
            lines.pop(rng.randrange(len(lines)))
    write_run(folder, tasks)
    results = next(folder.rglob("results_*.json"))
    if rng.random() < 0.3:
        data = json.loads(results.read_text(encoding="utf-8"))
        for _ in range(rng.randint(1, 3)):
            mutate(data, rng)
        results.write_text(json.dumps(data), encoding="utf-8")
    if rng.random() < 0.2:
        file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        file.write_bytes(damage(file.read_bytes(), rng))


def check_reading(seed: int) -> None:
    """What is read is true, or refused in one line that names a file of the run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_changed(folder, seed)
        said = ""
        try:
            run = load_run(folder)
            for task in run.tasks:
                for found in run.metrics(task, names=["acc", "ece", "brier_top_label"], with_stderr=False).values():
                    assert math.isnan(found.value) or 0 <= found.value <= 1, f"seed {seed}: {found}"
            assert len(list(run.records)) == len(run), f"seed {seed}"
        except UserError as error:
            said = str(error)
        assert "\n" not in said.strip(), f"seed {seed}: {said!r}"
        assert not said or name in said or TIME in said, f"seed {seed}: {said!r}"


def beside(run: Path) -> Path:
    """The run that was not changed."""
    return run.parent / "sound"


COMMANDS: tuple[Callable[[Path, Path], tuple[object, ...]], ...] = (
    lambda run, out: ("runs", run, "--format", "json", "--output", out / "x.json"),
    lambda run, out: ("report", run, "--output", out / "x.html"),
    lambda run, out: (
        "compare",
        f"a={run}",
        f"b={beside(run)}",
        "--format",
        "json",
        "--output",
        out / "x.json",
    ),
    lambda run, out: ("drift", beside(run), run, "--history", out / "x.jsonl"),
    lambda run, out: ("recalibrate", run, "--output", out / "x.json"),
    lambda run, out: ("decide", run, "--output", out / "x.json"),
    lambda run, out: ("export", run, "--format", "csv", "--output", out / "x.csv"),
    lambda run, out: ("evidence", run, "--domain", "all of it", "--output", out / "x"),
)


DRIFT = 3


def check_command(seed: int, which: int) -> None:
    """A command ends with 0 or 1 and a whole file, or with 2, one line, and none."""
    with tempfile.TemporaryDirectory() as name:
        run, sound, out = (Path(name) / part for part in ("changed", "sound", "out"))
        for folder in (run, sound, out):
            folder.mkdir()
        write_run(sound, TASKS)
        write_changed(run, seed)
        done = run_command(*COMMANDS[which](run, out))
        written = list(out.iterdir())
        if done.exit_code == 2:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
            is_verdict = which == DRIFT and not errors  # "not comparable", which its table explains
            assert len(errors) == 1 or is_verdict, f"seed {seed}, command {which}: {done.stderr}"
            assert not written or is_verdict, f"seed {seed}, command {which}: {written}"
            return
        assert done.exit_code in (0, 1), f"seed {seed}, command {which}: {done.output}"
        for file in written:
            text = file.read_bytes().decode("utf-8")
            if file.suffix == ".json":
                json.loads(text, parse_constant=_refuse)


def _refuse(found: str) -> None:
    raise AssertionError(f"{found} is no JSON")


FOUND = (403123852, 2325348894, 1689017785, 3245220484, 2196138781, 525723, 26640)
"""Seeds of files that were once read wrongly."""


def no_estimate(_: Any, first: Any, second: Any, **options: Any) -> Estimate:
    return undefined_estimate(len(second), "not asked for")


SEEDS = st.integers(0, 2**32 - 1)
UNTIMED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),  # a seed has nothing to shrink
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_stays_mended(seed: int) -> None:
    check_reading(seed)


@given(SEEDS)
@settings(max_examples=60, derandomize=True, **UNTIMED)
def test_changed_files_are_read_truly_or_refused(seed: int) -> None:
    check_reading(seed)


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=2000, derandomize=True, **UNTIMED)
def test_many_changed_files_are_read_truly_or_refused(seed: int) -> None:
    """Values throughout; their intervals, which take most of the time, for every fourth seed."""
    with pytest.MonkeyPatch.context() as patch:
        if seed % 4:
            patch.setattr(definition.Definition, "_estimate", no_estimate)
        check_reading(seed)


@pytest.mark.slow
@pytest.mark.parametrize("which", range(len(COMMANDS)))
@given(seed=SEEDS)
@settings(max_examples=15, derandomize=True, **UNTIMED)
def test_commands_end_with_a_whole_file_or_one_line(which: int, seed: int) -> None:
    check_command(seed, which)
