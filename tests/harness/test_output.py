"""A run on a disk that is full, read-only or broken: everything is saved whole, or it ends with 1 and the name."""

import json
import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS, Steps, inject, outcomes
from lm_eval.api.model import CachingLM
from lm_eval.loggers import EvaluationTracker, evaluation_tracker
from typer.testing import CliRunner
from users_tasks import make_rows, write_task

import lm_eval_calibration.tasks
from lm_eval_calibration import load_run
from lm_eval_calibration.cli import app
from lm_eval_calibration.harness.output import NotSavedError, whole_files
from lm_eval_calibration.harness.response_cache import ResponseCache

assert lm_eval_calibration.tasks  # the patches are applied


def samples(task: str) -> list[dict[str, Any]]:
    hashes = {"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}
    return [
        {"doc_id": i, "doc": {"q": f"{task} {i} \udc80"}, "target": "A", "arguments": [("p", " A")], **hashes}
        | {"resps": [["x" * 300]], "filtered_resps": ["x"], "filter": "none", "metrics": ["acc"], "acc": 1.0}
        for i in range(6)
    ]


def save(folder: Path) -> None:
    """What the harness's command does at its end."""
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args("hf", "pretrained=m", None, None, False)
    tasks = {name: samples(name) for name in ("first", "second")}
    results = {"results": {name: {"acc,none": 0.5} for name in tasks}, "configs": {name: {} for name in tasks}}
    with whole_files():
        tracker.save_results_aggregated(results, tasks)
        for name, lines in tasks.items():
            tracker.save_results_samples(name, lines)


def saved(folder: Path) -> dict[str, Any]:
    found = {}
    for path in folder.rglob("*.json*"):
        text = path.read_text(encoding="utf-8")
        if not path.name.startswith("."):
            lines = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
            found["_".join(path.name.split("_")[:2]) if path.suffix == ".jsonl" else "results"] = lines
    return found


def test_every_fault_at_every_write_of_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset() -> None:
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            path.unlink()

    found = outcomes(lambda: save(tmp_path), lambda: saved(tmp_path), reset, monkeypatch)
    assert {fault for _, fault in found} == set(FAULTS)
    for (step, fault), (ended, files) in found.items():
        assert all(len(lines) == 6 for name, lines in files.items() if name != "results"), "whole or not at all"
        if fault in ("EINTR", "short"):
            assert ended == "done"
            assert set(files) == {"results", "samples_first", "samples_second"}
        elif fault != "kill":
            message = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}[fault]
            assert ended.startswith("NotSavedError: not everything was saved: "), (step, ended)
            assert message in ended
            assert f"{tmp_path}" in ended
            assert len(files) == 2, "all but the file that failed"
    assert evaluation_tracker.Path is Path
    assert "open" not in vars(evaluation_tracker)


def test_what_fails_before_a_file_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_text("a file in the place of the folder")
    with pytest.raises(NotSavedError, match="results aggregated"):
        save(tmp_path)
    monkeypatch.setattr(evaluation_tracker, "sanitize_list", lambda _: 1 / 0)
    with pytest.raises(NotSavedError, match="samples_first"):
        save(tmp_path / "other")


def test_a_lone_surrogate_is_logged(tmp_path: Path) -> None:
    save(tmp_path)
    assert saved(tmp_path)["samples_first"][0]["doc"] == {"q": "first 0 \udc80"}


def command(folder: Path, *arguments: str) -> Any:
    given = ["run", "--model", "dummy", "--include_path", str(folder), "--tasks", "ward_calibration", *arguments]
    return CliRunner().invoke(app, given)


def test_the_folder_is_tried_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "ward")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("lm_eval.evaluator.simple_evaluate", None)  # would be an error
    for path in ("file/out", "file/out.json"):
        done = command(tmp_path, "--output_path", str(tmp_path / path))
        assert done.exit_code == 1
        assert "can't be written to: " in done.stderr
        assert str(tmp_path / "file") in done.stderr
    inject(monkeypatch, Steps(0, "ENOSPC"))
    done = command(tmp_path, "--output_path", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert done.stderr.strip() == f"error: {tmp_path}/out can't be written to: No space left on device"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_disk_that_fills_up_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "ward", make_rows(4), doc_to_text="question", doc_to_choice="options", doc_to_target="answer")
    inject(monkeypatch, Steps(20, "ENOSPC"))
    done = command(tmp_path, "--output_path", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "No space left on device" in done.stderr
    assert "ward_calibration" in done.stdout, "the table is shown all the same"
    assert not list((tmp_path / "out").rglob("results_*.json")) or not list((tmp_path / "out").rglob("samples_*"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Any:
    """A file system of 256 KiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(tmp_path: Path, full_disk: Path) -> None:
    write_task(tmp_path, "ward")
    with pytest.raises(OSError, match="No space"):
        (full_disk / "much").write_bytes(bytes(1 << 20))
    done = command(tmp_path, "--output_path", str(full_disk / "out"))
    assert done.exit_code == 1
    assert "out can't be written to: No space left on device" in done.stderr


def test_a_cache_on_a_full_disk_is_one_error(full_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ResponseCache(str(full_disk / "c.db"))
    for i in range(600):
        cache[str(i)] = "x" * 2000
    assert caplog.text.count("can't be used") == 1
    assert "the run goes on without it" in caplog.text
    assert "0" not in cache
    kept = ResponseCache(str(full_disk / "c.db"))
    assert kept["0"] == "x" * 2000, "what was kept before stays"


def test_a_cache_that_can_not_be_opened_is_one_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no database, or at least none that SQLite knows")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        cache = ResponseCache(str(path))
        cache["a"] = 1
        assert len(cache) == 0
        assert cache.get("a") is None
        cache.commit()
    assert caplog.text.count("can't be used") == 2


def test_the_file_is_the_harness_s(tmp_path: Path) -> None:
    from sqlitedict import SqliteDict

    theirs = SqliteDict(str(tmp_path / "c.db"), autocommit=True)
    theirs["a"] = (-1.5, True)
    theirs.close()
    ours = ResponseCache(str(tmp_path / "c.db"))
    assert dict(ours) == {"a": (-1.5, True)}
    ours["b"] = [1]
    ours["a"] = (-2.5, False)
    del ours["b"]
    ours["c"] = "x"
    ours.close()
    assert dict(SqliteDict(str(tmp_path / "c.db"))) == {"a": (-2.5, False), "c": "x"}


def test_the_harness_caches_by_ours(tmp_path: Path) -> None:
    class Backend:
        def set_cache_hook(self, hook: Any) -> None:
            self.hook = hook

    backend = Backend()
    caching = CachingLM(backend, str(tmp_path / "new" / "c.db"))
    assert isinstance(caching.dbdict, ResponseCache)
    assert backend.hook.dbdict is caching.dbdict
    assert CachingLM.__init__.stock is not None


WRITER = """
import sys
from lm_eval_calibration.harness.response_cache import ResponseCache
cache = ResponseCache(sys.argv[1])
for i in range(int(sys.argv[3])):
    cache[f"{sys.argv[2]} {i}"] = ["x" * 5000, i]
    print(i, flush=True)
"""


def write(path: Path, name: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def whole(path: Path) -> set[str]:
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {key for key, value in database.execute("SELECT key, value FROM unnamed") if pickle.loads(value)}


@pytest.mark.slow
def test_a_kill_inside_a_write_to_the_cache_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    for kill in range(6):
        with write(path, f"writer {kill}", 100_000) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(20 + 37 * kill)]
            writer.kill()
            said += writer.stdout.readlines()
        done = {f"writer {kill} {i}" for i in range(len([line for line in said if line.endswith("\n")]))}
        assert done <= whole(path)


@pytest.mark.slow
def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    writers = [write(path, name, 200) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        assert [len(out.splitlines()) for out, _ in pool.map(subprocess.Popen.communicate, writers)] == [200, 200]
    assert len(whole(path)) == 400


@pytest.mark.slow
def test_two_runs_share_an_output_folder_and_a_cache(tmp_path: Path, python: list[str]) -> None:
    write_task(tmp_path, "ward", make_rows(8), doc_to_text="question", doc_to_choice="options", doc_to_target="answer")
    given = ["run", "--model", "dummy", "--include_path", ".", "--tasks", "ward_calibration", "--output_path", "out"]
    run = [*python, "-m", "lm_eval_calibration", *given, "--use_cache", "cache"]
    runs = [subprocess.Popen(run, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for one in runs:
        _, said = one.communicate(timeout=600)
        assert one.returncode == 0, said.decode()
    results = list((tmp_path / "out").rglob("results_*.json"))
    assert len(results) == 2
    assert [len(load_run(path)) for path in results] == [8, 8]
