"""Folders as the harness, systems and people leave them: the same numbers in every form."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from changed_files import LFS, change, in_line, record, results_of, samples_of, summary, two_tasks
from commands import run_command as invoke
from logged_runs import TIME, make_lines

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results import Selection, find_sources


def in_circles(folder: Path) -> None:
    (folder / "again").symlink_to(folder, target_is_directory=True)


def odd_docs(folder: Path) -> None:
    def harm(lines: list[Any]) -> None:
        oddities = ({"doc": 7}, {"doc": None}, {"doc": [1]}, {"target": {"a": 1}}, {"arguments": 7}, {"resps": None})
        for line, oddity in zip(lines, oddities, strict=False):
            line.update(oddity)
        lines[10].pop("doc")

    change(samples_of(folder), harm)


def name_of_another_encoding(folder: Path) -> None:
    inside = samples_of(folder).parent
    os.rename(os.fsencode(inside), os.path.join(os.fsencode(inside.parent), b"caf\xe9"))


SOUND: dict[str, Callable[[Path], None]] = {
    "blank lines at the end": lambda folder: (
        samples_of(folder).write_bytes(samples_of(folder).read_bytes() + b"\n\n") and None
    ),
    "odd docs": odd_docs,
    "a folder's name of another encoding": name_of_another_encoding,
    "circle of folders": in_circles,
    "lone surrogate": in_line('"Which?', '"\\\\ud800 Which?'.replace("\\\\", "\\")),
    "no date": lambda folder: summary(results_of(folder), date="x"),
    "a date beyond all dates": lambda folder: (
        summary(results_of(folder), date=1e300)
        or (results_of(folder).rename(results_of(folder).with_name("results.json")) and None)
    ),
    "results in gzip": lambda folder: (
        (folder / "org__model" / f"results_{TIME}.json.gz").write_bytes(gzip.compress(results_of(folder).read_bytes()))
        and (folder / "org__model" / f"results_{TIME}.json").unlink()
    ),
    "a file of another name": lambda folder: samples_of(folder).rename(
        samples_of(folder).with_name(samples_of(folder).name.replace("law", "my_task"))
    ),
    "n-samples null": lambda folder: summary(results_of(folder), **{"n-samples": None}),
    "n-samples null of a task": lambda folder: summary(results_of(folder), **{"n-samples": {"law": None}}),
    "minus infinity": record(log_likelihoods=[None, -1, -2, -3]),
    "unknown field": record(entropy={"x": [1]}),
    "notes beside": lambda folder: (folder / "org__model" / "notes.json").write_text("{", encoding="utf-8"),
    "array beside": lambda folder: (folder / "list_2026-01-01.json").write_text("[1]", encoding="utf-8"),
    "LFS beside": lambda folder: (folder / "org__model" / "tokenizer.json").write_text(LFS, encoding="utf-8"),
    "mark of UTF-8": lambda folder: samples_of(folder).write_bytes(b"\xef\xbb\xbf" + samples_of(folder).read_bytes()),
    "lines of Windows": lambda folder: samples_of(folder).write_bytes(
        samples_of(folder).read_bytes().replace(b"\n", b"\r\n")
    ),
}
"""What must not change the numbers of a run."""


@pytest.mark.parametrize("name", SOUND)
def test_what_is_no_harm_changes_no_number(tmp_path: Path, name: str) -> None:
    folder = two_tasks(tmp_path)
    before = load_run(folder)
    SOUND[name](folder)
    after = load_run(folder)
    assert (after.tasks, len(after), after.notes) == (("law", "tax"), 48, [])
    if name != "minus infinity":
        assert after.metrics(names=("acc", "ece", "full_ece")) == before.metrics(names=("acc", "ece", "full_ece"))
    assert invoke("report", str(folder), "--output", str(tmp_path / "r.html")).exit_code == 0


def write_again(folder: Path, name: Callable[[Path], str], content: Callable[[bytes], bytes]) -> None:
    for path in list(folder.rglob("samples_*")):
        data = path.read_bytes()
        path.unlink()
        path.with_name(name(path)).write_bytes(content(data))


def as_array(data: bytes) -> bytes:
    return json.dumps([json.loads(line) for line in data.splitlines()], indent=2).encode()


FORMS: dict[str, tuple[Callable[[Path], str], Callable[[bytes], bytes]]] = {
    "gz": (lambda path: path.name + ".gz", gzip.compress),
    "zst": (lambda path: path.name + ".zst", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
    "json": (lambda path: path.name.replace(".jsonl", ".json"), lambda data: data),
    "json array": (lambda path: path.name.replace(".jsonl", ".json"), as_array),
    "colons": (lambda path: path.name.replace("10-00-00", "10:00:00"), lambda data: data),
    "percent escapes": (lambda path: path.name.replace("10-00-00", "10%3A00%3A00"), lambda data: data),
    "backslashes": (lambda path: "out\\org__model\\" + path.name, lambda data: data),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_files_gives_the_same_numbers(tmp_path: Path, form: str) -> None:
    folder = two_tasks(tmp_path)
    before = load_run(folder)
    lines = [sample.line for sample in before.samples]
    write_again(folder, *FORMS[form])
    after = load_run(folder)
    assert (after.model, after.tasks, after.notes) == (before.model, before.tasks, [])
    assert after.metrics() == before.metrics()
    assert [sample.line for sample in after.samples] == lines
    assert after.samples[30].line == lines[30]


@pytest.mark.parametrize("has_results", [True, False])
def test_arrays_of_harness_0_4_0_to_0_4_2(tmp_path: Path, has_results: bool) -> None:
    folder = two_tasks(tmp_path)
    before = load_run(folder)
    inside = folder / "org__model"
    arguments = "pretrained__EleutherAI__pythia-70m,dtype__float16"
    for task in ("law", "tax"):
        path = samples_of(folder, task)
        (inside / f"{arguments}_{task}.jsonl").write_bytes(as_array(path.read_bytes()))
        path.unlink()
    (inside / "training_data.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    data = json.loads(results_of(folder).read_text(encoding="utf-8"))
    results_of(folder).unlink()
    if has_results:
        old = {key: data[key] for key in ("results", "configs", "versions", "n-shot")}
        old["config"] = {"model": "hf", "model_args": "pretrained=EleutherAI/pythia-70m,dtype=float16"}
        (inside / "results.json").write_text(json.dumps(old), encoding="utf-8")
    after = load_run(folder)
    assert after.tasks == before.tasks
    assert after.model == ("EleutherAI/pythia-70m" if has_results else arguments)
    assert after.metrics() == before.metrics()


@pytest.mark.parametrize("sanitized", ["/|=", '["<>:/|\\\\?*]+'])
@pytest.mark.parametrize("place", ["org/", "/models/"])
def test_arrays_of_two_models_in_one_folder_go_with_their_results(tmp_path: Path, place: str, sanitized: str) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    one, two = f"{place}one", f"{place}two"
    for seed, (model, name) in enumerate({one: "results.json", two: "two.json"}.items()):
        arguments = f"pretrained={model},revision=step:100"
        data = {"results": {"law": {"acc,none": 0.5}}, "config": {"model": "hf", "model_args": arguments}}
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
        path = folder / f"{re.sub(sanitized, '__', arguments)}_law.jsonl"
        path.write_text(json.dumps(make_lines("law", 6 + seed)), encoding="utf-8")
    found = {name: load_run(folder, select=Selection(model=name)) for name in (one, two)}
    assert {name: (run.configuration.model, len(run), run.notes) for name, run in found.items()} == {
        one: (one, 6, []),
        two: (two, 7, []),
    }


def test_copies_of_files_are_no_further_tasks(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    hidden = folder / "org__model" / ".ipynb_checkpoints"
    hidden.mkdir()
    for path in [samples_of(folder), results_of(folder)]:
        (hidden / f"{path.stem}-checkpoint{path.suffix}").write_bytes(path.read_bytes())
    assert len(load_run(folder)) == 48
    for path in [samples_of(folder), results_of(folder)]:
        path.with_name(f"{path.stem} (1){path.suffix}").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"2 runs of one model.*10-00-00.* \(1\): law, tax"):
        load_run(folder)


def test_results_without_a_time_go_with_the_only_samples(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    results_of(folder).rename(folder / "org__model" / "results.json")
    run = load_run(folder)
    assert (run.model, len(run), run.notes) == ("org/model", 48, [])


def test_links_to_files_and_folders_are_read(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "run").symlink_to(folder / "org__model", target_is_directory=True)
    assert len(load_run(tmp_path / "snapshot")) == 48


def test_calls_are_found_with_their_results(tmp_path: Path) -> None:
    found = find_sources([two_tasks(tmp_path)])
    assert [(source.model, source.time, sorted(source.samples)) for source in found.sources] == [
        ("org/model", TIME, ["law", "tax"])
    ]
