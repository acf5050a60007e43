"""Files are there whole or not at all, whatever fails: every write of every command that writes one."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from faults import outcomes

from lm_eval_calibration.errors import OutputError
from lm_eval_calibration.records.files import check_writable, only_writer, whole_file, write_all_whole, write_whole

LONG = "a line that is long enough\n" * 200


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def named(folder: Path) -> dict[str, str]:
    """What readers find: a killed writer may leave a file of a hidden name."""
    return {name: text for name, text in contents(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize("before", [{}, {"a": "old"}, {"a": "old", "b": "older"}])
def test_every_fault_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str]) -> None:
    def reset() -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in before.items():
            (tmp_path / name).write_text(text)

    new = {"a": LONG, "b": LONG * 2}
    found = outcomes(
        lambda: write_all_whole({tmp_path / name: text for name, text in new.items()}),
        lambda: (named(tmp_path), contents(tmp_path)),
        reset,
        monkeypatch,
    )
    for (step, fault), (ended, (seen, everything)) in found.items():
        assert all(seen.get(name) in (before.get(name), new[name]) for name in new), (step, fault)
        if fault in ("EINTR", "short"):
            assert (ended, seen) == ("done", new)
        elif fault != "kill":
            assert ended.startswith(f"OutputError: {tmp_path}"), ended
            assert everything == seen, "nothing else is left"
    assert {ended for (_, fault), (ended, _) in found.items() if fault == "kill"} == {"killed"}
    writes = [seen for (_, fault), (_, (seen, _)) in found.items() if fault == "ENOSPC"]
    assert sum(seen == before for seen in writes) >= len(writes) - 2, "all or none, but for the very renaming"


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, LONG)
    reader.join(10)
    assert read == [LONG]
    assert pipe.is_fifo()
    write_whole(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_an_error_inside_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert contents(tmp_path) == {"a": "old"}


def test_a_folder_that_can_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir()), "nothing is left of the trial"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/deep can't be written to: Not a directory"):
        check_writable(tmp_path / "file" / "deep")

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="x can't be written to: No space left on device"):
        check_writable(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    path.write_text("[]")

    def add(number: int) -> None:
        for _ in range(20):
            with only_writer(path):
                write_whole(path, json.dumps([*json.loads(path.read_text()), number]))

    threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())) == 80
