"""What is kept of a run and of a command, how it is compared, and the files it lies in.

A case gives ``{"numbers": ..., "texts": ...}``: numbers are results, records and files of JSON and CSV; texts are log
lines, tables and what is printed. Numbers (and keys) must stay; wording may be changed on purpose.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import logging
import math
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval_calibration

SNAPSHOTS = Path(__file__).with_name("snapshots")
RUNS = Path(__file__).with_name("runs")
PACKAGE = Path(lm_eval_calibration.__file__).parent
FREEZE, EXACT = (os.environ.get(f"LM_EVAL_CALIBRATION_{name}") == "1" for name in ("FREEZE", "FROZEN_EXACT"))
BIG = 100_000

BINNED = re.compile(r"ece|ace|mce|rms_ce|sce|aur|augrc|auprc|_sums|large_|top_|stderr|_low|_high|_null|_p,|skill|error")
"""Keys whose numbers jump where a probability crosses a bin or a threshold, or two docs change their order."""

_CHANGING = {"versions", "version", "made", "sha256", "retrieved_timestamp", "evaluation_id", "transformers_version"}


@dataclass(frozen=True)
class Case:
    """One kind of run; ``tolerance`` above 1e-6 means a torch model: binned numbers are then not compared."""

    run: Callable[[Any], dict[str, Any]]
    tolerance: float = 1e-12

    @property
    def is_rough(self) -> bool:
        return self.tolerance > 1e-6 and not EXACT


CASES: dict[str, Case] = {}


def case(tolerance: float = 1e-12) -> Callable[[Callable[[Any], dict[str, Any]]], Callable[[Any], dict[str, Any]]]:
    """Put a function into the table of cases under its name."""

    def add(function: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        assert function.__name__ not in CASES
        CASES[function.__name__] = Case(function, tolerance)
        return function

    return add


# --- what is kept -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that the package logs."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ours = record.name.startswith("lm_eval.calibration") or Path(record.pathname).is_relative_to(PACKAGE)
            if ours and record.levelno >= logging.INFO:
                lines.append(f"{record.levelname} {record.getMessage()}")

    logger, handler = logging.getLogger("lm_eval"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def plain(value: Any) -> Any:
    """As it is after JSON, without versions of packages and times."""
    if isinstance(value, dict):
        return {
            str(key): f"<{key}>" if key in _CHANGING and _changes(key, item) else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int) else _number(value)


def _changes(key: str, item: Any) -> bool:
    """A record's and a task's ``version`` is a number, and ``versions`` of tasks are: these stay."""
    if key == "versions":
        return any(isinstance(part, str) and part.count(".") for part in dict(item).values())
    return isinstance(item, str) or key == "retrieved_timestamp"


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, float) or hasattr(value, "dtype") else str(value)


_SAMPLE = {"doc", "arguments"}
_WHOLE = ("results", "groups", "group_subtasks", "n-samples", "n-shot", "higher_is_better", "versions")
_CONFIG = ("metadata", "output_type", "generation_kwargs", "repeats", "num_fewshot", "target_delimiter")


def of_results(results: dict[str, Any]) -> dict[str, Any]:
    """What a run of the harness gave."""
    from lm_eval.utils import make_table

    numbers = {key: results[key] for key in _WHOLE if key in results}
    numbers["configs"] = {
        task: {key: config.get(key) for key in _CONFIG}
        | {"metrics": [[m["metric"], m.get("higher_is_better")] for m in config.get("metric_list") or []]}
        for task, config in results["configs"].items()
    }
    numbers["samples"] = {
        task: [_line(line) for line in sorted(lines, key=lambda line: (line["doc_id"], line["filter"]))]
        for task, lines in results.get("samples", {}).items()
    }
    texts = {"table": make_table(results)}
    if results.get("groups"):
        texts["groups"] = make_table(results, "groups")
    return {"numbers": plain(numbers), "texts": texts}


def _line(line: dict[str, Any]) -> dict[str, Any]:
    asked = json.dumps(line["arguments"], default=str).encode()
    kept = {key: value for key, value in line.items() if key not in _SAMPLE}
    return {**kept, "keys": sorted(line), "arguments": hashlib.sha256(asked).hexdigest()[:16]}


def command(*arguments: str) -> dict[str, Any]:
    """Run ``lm-eval-calibration`` in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    argv, code = sys.argv, 0
    sys.argv = ["lm-eval-calibration", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("lm_eval_calibration", run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = argv
    printed, said = (stream.buffer.getvalue().decode() for stream in (out, err))
    said = [line for line in said.splitlines() if re.match(r"note|error|\d(?!\d{3}-)", line)]
    return {"code": code, "out": printed, "err": [line for line in said if "it/s" not in line]}


def of_commands(*commands: str, outputs: str = "") -> dict[str, Any]:
    """What commands say, and the files (names in ``outputs``) that they then have written."""
    numbers: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for line in commands:
        done = command(*line.split())
        texts[line] = {"err": done["err"]}
        numbers[line] = {"code": done["code"]}
        _keep(line, done["out"], numbers[line], texts[line])
    for name in outputs.split():
        numbers[name], texts[name] = {}, {}
        if Path(name).exists():
            _keep(name, Path(name).read_bytes(), numbers[name], texts[name])
        else:
            numbers[name]["is_missing"] = True
    return {"numbers": numbers, "texts": texts}


def _keep(name: str, content: str | bytes, numbers: dict[str, Any], texts: dict[str, Any]) -> None:
    if isinstance(content, bytes) and content.startswith(b"\x89PNG"):
        texts["content"] = "a PNG"
        return
    text = content if isinstance(content, str) else content.decode()
    if "<svg" in text[:2000] and "<html" not in text[:200]:
        texts["content"] = re.findall(r'aria-label="([^"]*)"', text)
    elif "<html" in text[:200]:
        text = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>|<[^>]*>|data:\S+", "\n", text)
        texts["content"] = [_steady(part.strip()) for part in text.splitlines() if part.strip()]
    elif name.endswith(".jsonl"):
        numbers["content"] = [plain(json.loads(line)) for line in text.splitlines()]
    elif text.startswith(("{", "[")):
        numbers["content"] = plain(json.loads(text))
    elif name.endswith((".csv", "csv")):
        numbers["content"] = [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
    else:
        texts["content"] = list(map(_steady, text.splitlines()))
        numbers["figures"] = [float(figure) for figure in re.findall(r"-?\d+\.\d+", "\n".join(texts["content"]))]


def _steady(text: str) -> str:
    """Without hashes of what holds a time, times of today, and versions."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "<now>", text)
    return re.sub(r"(lm-eval-calibration,?(?: version)?|version = \{) ?\d+\.\d+[\w.]*", r"\1 <version>", text)


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


# --- files and comparison ---------------------------------------------------------------------------------------------


def write(name: str, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    SNAPSHOTS.mkdir(exist_ok=True)
    path, packed = SNAPSHOTS / f"{name}.json", SNAPSHOTS / f"{name}.json.gz"
    for old in (path, packed):
        old.unlink(missing_ok=True)
    if len(text.encode()) > BIG:
        packed.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    else:
        path.write_text(text, encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    packed = SNAPSHOTS / f"{name}.json.gz"
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else (SNAPSHOTS / f"{name}.json").read_bytes()
    return dict(json.loads(data))


def unpack_runs(folder: Path) -> None:
    """Write the fixed runs where the commands find them."""
    for path in (path for path in RUNS.rglob("*") if path.is_file()):
        target = folder / path.relative_to(RUNS)
        target.parent.mkdir(parents=True, exist_ok=True)
        is_packed = path.suffix == ".gz"
        (target.with_suffix("") if is_packed else target).write_bytes(
            gzip.decompress(path.read_bytes()) if is_packed else path.read_bytes()
        )


def differences(found: Any, frozen: Any, of: Case, where: str = "") -> Iterator[str]:
    """Say where two values of JSON differ."""
    if of.is_rough and BINNED.search(where):
        if type(found) is not type(frozen):
            yield f"{where}: {found!r} was {frozen!r}"
    elif isinstance(found, dict) and isinstance(frozen, dict):
        for key in sorted(found.keys() ^ frozen.keys()):
            yield f"{where}: {key} is {'new' if key in found else 'gone'}"
        for key in sorted(found.keys() & frozen.keys()):
            yield from differences(found[key], frozen[key], of, f"{where}/{key}")
    elif isinstance(found, list) and isinstance(frozen, list) and len(found) == len(frozen):
        for i, pair in enumerate(zip(found, frozen, strict=True)):
            yield from differences(*pair, of, f"{where}[{i}]")
    elif isinstance(found, float) and isinstance(frozen, float):
        limit = 1e-12 if EXACT else of.tolerance
        if not (math.isnan(found) and math.isnan(frozen)) and not math.isclose(
            found, frozen, rel_tol=limit, abs_tol=limit
        ):
            yield f"{where}: {found!r} was {frozen!r}"
    elif type(found) is not type(frozen) or found != frozen:
        yield f"{where}: {found!r} was {frozen!r}"


def without_figures(value: Any) -> str:
    """A text of a run whose last digits, and so the widths of columns, depend on the processor."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    return re.sub(r" +", "", re.sub(r"-?\d+\.?\d*(e-\d+)?", "#", re.sub(r"-{2,}:?", "--", text)))
