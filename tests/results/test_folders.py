"""Folders as the harness leaves them, sound and broken in every way: true numbers or one line that names the place."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import run_command as invoke
from logged_runs import TIME, make_generated_lines, make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results import Selection, find_sources

LINES = make_lines("law", 24)
OTHER = make_lines("tax", 24)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
DEEP = "[" * 3000 + "]" * 3000


def folder_of(tmp_path: Path) -> Path:
    return write_run(tmp_path / "out", {"law": LINES, "tax": OTHER})


def samples(folder: Path, task: str = "law") -> Path:
    return next(folder.rglob(f"samples_{task}_*"))


def results(folder: Path) -> Path:
    return next(folder.rglob("results_*"))


def change(path: Path, how: Callable[[list[Any]], Any]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    how(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def summary(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def record(**changes: Any) -> Callable[[Path], None]:
    """Break a record of the law task."""

    def harm(folder: Path) -> None:
        change(samples(folder), lambda lines: lines[4]["calibration"].update(changes))

    return harm


def lacking(field: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        change(samples(folder), lambda lines: lines[4]["calibration"].pop(field))

    return harm


def raw(text: str | bytes) -> Callable[[Path], None]:
    """Put this in place of the law task's file."""

    def harm(folder: Path) -> None:
        samples(folder).write_bytes(text if isinstance(text, bytes) else text.encode())

    return harm


def in_line(old: str, new: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = samples(folder)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines[4] = lines[4].replace(old, new, 1)
        path.write_text("".join(lines), encoding="utf-8")

    return harm


def cut(folder: Path) -> None:
    path = samples(folder)
    path.write_bytes(path.read_bytes()[:-30])


def cut_at_a_line(folder: Path) -> None:
    path = samples(folder)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")


def cut_gzip(folder: Path) -> None:
    path = samples(folder)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-400])
    path.unlink()


def dangling(folder: Path) -> None:
    path = samples(folder)
    path.unlink()
    path.symlink_to(folder / "nowhere")


def loop(folder: Path) -> None:
    path = samples(folder)
    path.unlink()
    path.symlink_to(path)


def fifo(folder: Path) -> None:
    path = samples(folder)
    path.unlink()
    os.mkfifo(path)


def in_circles(folder: Path) -> None:
    (folder / "again").symlink_to(folder, target_is_directory=True)


def directory(folder: Path) -> None:
    path = samples(folder)
    path.unlink()
    path.mkdir()


def twice(folder: Path) -> None:
    change(samples(folder), lambda lines: lines.__setitem__(5, lines[4]))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, r"line 24: not JSON, cut short"),
    "cut at a line": (cut_at_a_line, r"counts 24 docs of law, but samples_law_.* has 12"),
    "cut gzip": (cut_gzip, r"samples_law_.*gz: "),
    "LFS": (raw(LFS), r"Git LFS pointer: run `git lfs pull`"),
    "empty": (raw(""), r"counts 24 docs of law"),
    "binary": (raw(bytes(range(256)) * 20), r"line 1: not JSON"),
    "a number": (raw("7\n"), r"line 1: no 'calibration' record"),
    "null": (raw("null\n"), r"line 1: no 'calibration' record"),
    "object of nothing": (raw("{}\n"), r"line 1: "),
    "array of numbers": (raw("[1, 2]"), r"entry 1: no 'calibration' record"),
    "open array": (raw("[1, 2"), r"not JSON"),
    "deep": (raw(f'{{"calibration": {DEEP}}}\n'), r"line 1: not JSON \(nested too deeply"),
    "deep doc": (in_line('"doc": {', f'"doc": {{"x": {DEEP}, '), r"line 5: not JSON \(nested too deeply"),
    "UTF-16": (raw('{"doc_id": 1}\n'.encode("utf-16")), r"line 1: not JSON"),
    "NULs": (raw(b"\0" * 4096), r"line 1: not JSON"),
    "dangling": (dangling, r"samples_law_.*: No such file"),
    "loop": (loop, r"samples_law_.*: .*symbolic links"),
    "FIFO": (fifo, r"not a regular file"),
    "directory": (directory, r"counts 24 docs of law"),
    "twice": (twice, r"doc 4 of law is twice"),
    "version": (record(version=2), r"line 5: record version 2 is not 1"),
    "version of a type": (record(version=[1]), r"line 5: record version \[1\] is not 1"),
    "kind": (record(kind="x"), r"line 5: kind is 'x'"),
    "kind of a type": (record(kind=["x"]), r"line 5: .*kind is \['x'\]"),
    "other kind": (record(generation={"text_hash": "x"}), r"line 5: a record of kind multiple_choice has generation"),
    "doc_id": (record(doc_id="four"), r"line 5: doc_id is 'four', not int or null"),
    "doc_id large": (record(doc_id=10**30), r"line 5: doc_id is .*, not int"),
    "doc_hash": (record(doc_hash=["x"]), r"line 5: doc_hash is \['x'\], not str"),
    "gold of a half": (record(gold=1.5), r"line 5: gold is 1.5, not int or null"),
    "gold true": (record(gold=True), r"line 5: gold is True, not int or null"),
    "gold outside": (record(gold=4), r"line 5: gold is 4, but there are 4 choices"),
    "positive": (record(log_likelihoods=[0.5, -1, -2, -3]), r"line 5: log_likelihoods\[0\] is 0.5, not float <= 0.001"),
    "boolean": (record(log_likelihoods=[True, -1, -2, -3]), r"line 5: log_likelihoods\[0\] is True, not float"),
    "text": (record(log_likelihoods=["-1", -1, -2, -3]), r"line 5: log_likelihoods\[0\] is '-1', not float"),
    "no choices": (record(log_likelihoods=[]), r"line 5: log_likelihoods are \[\]"),
    "NaN": (record(log_likelihoods=[float("nan"), -1, -2, -3]), r"line 5: log_likelihoods\[0\] is nan"),
    "kept_from": (record(kept_from=float("nan")), r"line 5: kept_from is nan, not float > 0"),
    "large_probs": (record(large_probs=[[1.5]]), r"line 5: large_probs\[0\]\[0\] is 1.5, not float <= 1"),
    "lengths": (record(large_probs=[]), r"line 5: log_probs and large_probs are not of the same positions"),
    "certificate": (record(certificate=[1]), r"line 5: certificate is \[1\], not object"),
    "doc of another task": (record(task="tax"), r"samples_law_.*: doc 4 is of tax, not of law"),
    "docs of another task": (
        lambda folder: change(
            samples(folder), lambda lines: [line["calibration"].update(task="art") for line in lines]
        ),
        r"samples_law_.*: doc 0 is of art, not of law",
    ),
    "cluster": (record(cluster="ward"), r"line 5: cluster is 'ward', not str"),
    **{
        f"no {field}": (lacking(field), rf"line 5: .*no {field}|line 5: .*{field}")
        for field in ("task", "doc_hash", "gold")
    },
}
"""What makes the law task unreadable, and the words that name it; the tax task stays sound."""


def blank_lines_at_the_end(folder: Path) -> None:
    path = samples(folder)
    path.write_bytes(path.read_bytes() + b"\n\n")


def odd_certificates(folder: Path) -> None:
    certificates = [{"backend": 7, "versions": [1], "reference": 3, "suspect": {"a": 1}}, {"reference": {"suspect": 1}}]

    def harm(lines: list[Any]) -> None:
        for line, certificate in zip(lines, certificates, strict=False):
            line["calibration"]["certificate"] = certificate

    change(samples(folder), harm)


def odd_docs(folder: Path) -> None:
    def harm(lines: list[Any]) -> None:
        oddities = ({"doc": 7}, {"doc": None}, {"doc": [1]}, {"target": {"a": 1}}, {"arguments": 7}, {"resps": None})
        for line, oddity in zip(lines, oddities, strict=False):
            line.update(oddity)
        lines[10].pop("doc")

    change(samples(folder), harm)


def cut_gzip_beside(folder: Path) -> None:
    path = samples(folder)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:50])


def name_of_another_encoding(folder: Path) -> None:
    inside = samples(folder).parent
    os.rename(os.fsencode(inside), os.path.join(os.fsencode(inside.parent), b"caf\xe9"))


SOUND: dict[str, Callable[[Path], None]] = {
    "blank lines at the end": lambda folder: (
        samples(folder).write_bytes(samples(folder).read_bytes() + b"\n\n") and None
    ),
    "odd docs": odd_docs,
    "a folder's name of another encoding": name_of_another_encoding,
    "circle of folders": in_circles,
    "lone surrogate": in_line('"Which?', '"\\\\ud800 Which?'.replace("\\\\", "\\")),
    "no date": lambda folder: summary(results(folder), date="x"),
    "a date beyond all dates": lambda folder: (
        summary(results(folder), date=1e300)
        or (results(folder).rename(results(folder).with_name("results.json")) and None)
    ),
    "results in gzip": lambda folder: (
        results(folder).with_name(results(folder).name + ".gz").write_bytes(gzip.compress(results(folder).read_bytes()))
        and min(folder.rglob("results_*"), key=lambda path: len(path.name)).unlink()
    ),
    "a file of another name": lambda folder: samples(folder).rename(
        samples(folder).with_name(samples(folder).name.replace("law", "my_task"))
    ),
    "n-samples null": lambda folder: summary(results(folder), **{"n-samples": None}),
    "n-samples null of a task": lambda folder: summary(results(folder), **{"n-samples": {"law": None}}),
    "minus infinity": record(log_likelihoods=[None, -1, -2, -3]),
    "unknown field": record(entropy={"x": [1]}),
    "notes beside": lambda folder: (folder / "org__model" / "notes.json").write_text("{", encoding="utf-8"),
    "array beside": lambda folder: (folder / "list_2026-01-01.json").write_text("[1]", encoding="utf-8"),
    "LFS beside": lambda folder: (folder / "org__model" / "tokenizer.json").write_text(LFS, encoding="utf-8"),
    "mark of UTF-8": lambda folder: samples(folder).write_bytes(b"\xef\xbb\xbf" + samples(folder).read_bytes()),
    "lines of Windows": lambda folder: samples(folder).write_bytes(
        samples(folder).read_bytes().replace(b"\n", b"\r\n")
    ),
}
"""What must not change the numbers of a run."""

BAD_RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"n_bins {value!r}": (
            {"configs": {"law": {"metadata": {"calibration": {"n_bins": value}}}}},
            r"configs.law.metadata.calibration.n_bins is .*, not 1 to 100",
        )
        for value in (0, -5, "abc", 10**9, True, 2.5)
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_and_what_is_sound_is_used(tmp_path: Path, name: str) -> None:
    harm, message = BROKEN[name]
    folder = folder_of(tmp_path)
    sound = load_run(samples(folder, "tax")).metrics(names=("acc", "ece"))
    harm(folder)
    run = load_run(folder)
    assert run.tasks == ("tax",)
    assert run.metrics(names=("acc", "ece")) == sound
    (note,) = run.notes
    assert re.search(message, note), note
    samples(folder, "tax").unlink()
    with pytest.raises(UserError):
        load_run(folder)


@pytest.mark.parametrize(
    "command", ["report", "decide", "recalibrate", "drift", "compare", "export", "runs", "evidence"]
)
@pytest.mark.parametrize("name", random.Random(0).sample(sorted(BROKEN), 5))
def test_no_command_ends_in_a_traceback(tmp_path: Path, name: str, command: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sound = write_run(tmp_path / "sound", {"law": LINES, "tax": OTHER}, model="org/sound")
    folder = folder_of(tmp_path)
    BROKEN[name][0](folder)
    paths = [folder, sound] if command in ("drift", "compare") else [folder]
    done = invoke(command, *map(str, paths))
    assert done.exit_code in (0, 1, 2)
    if command in ("drift", "evidence"):
        assert done.exit_code == 2  # a gate and a statement are of whole runs
    assert "Traceback" not in done.output
    if done.exit_code == 2:
        assert done.stderr.count("error: ") == 1
    elif command != "runs":
        assert "note: law is left out" in done.stderr or "law" in done.stderr


@pytest.mark.parametrize("name", SOUND)
def test_what_is_no_harm_changes_no_number(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path)
    before = load_run(folder)
    SOUND[name](folder)
    after = load_run(folder)
    assert (after.tasks, len(after), after.notes) == (("law", "tax"), 48, [])
    if name != "minus infinity":
        assert after.metrics(names=("acc", "ece", "full_ece")) == before.metrics(names=("acc", "ece", "full_ece"))
    assert invoke("report", str(folder), "--output", str(tmp_path / "r.html")).exit_code == 0


def test_odd_certificates_end_no_command(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    before = load_run(folder).metrics(names=("acc", "ece"))
    odd_certificates(folder)
    assert load_run(folder).metrics(names=("acc", "ece")) == before
    for command in ("report", "recalibrate", "decide", "evidence", "runs"):
        assert invoke(command, str(folder), "--output", str(tmp_path / command)).exit_code in (0, 1, 2)


def test_a_broken_file_beside_the_same_task_s_sound_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    before = load_run(folder).metrics(names=("acc", "ece"))
    cut_gzip_beside(folder)
    run = load_run(folder)
    assert run.tasks == ("law", "tax")
    assert run.metrics(names=("acc", "ece")) == before
    (note,) = run.notes
    assert ".gz" in note
    assert "law is left out" not in note


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_results_that_can_t_be_are_named(tmp_path: Path, name: str) -> None:
    changes, message = BAD_RESULTS[name]
    folder = folder_of(tmp_path)
    summary(results(folder), **changes)
    with pytest.raises(UserError, match=message):
        load_run(folder)
    assert len(load_run(folder, n_bins=10)) == 48


@pytest.mark.parametrize(
    "changes",
    [
        {"results": 3},
        {"configs": []},
        {"n-samples": {"law": {"effective": "x"}}},
        {"group_subtasks": {"a": 1}},
        {"config": 1},
    ],
)
def test_results_of_other_types_are_named_and_the_samples_used(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = folder_of(tmp_path)
    summary(results(folder), **changes)
    run = load_run(folder)
    assert run.tasks == ("law", "tax")
    assert str(results(folder)) in run.notes[0]


def test_a_doc_without_a_finite_log_likelihood_is_out_and_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    record(log_likelihoods=[None] * 4)(folder)
    run = load_run(folder)
    assert run.notes == ["law: 1 doc has no finite log-likelihood and no part in calibration: doc 4"]
    assert run.metrics("law", names=("ece",))["ece"].n_docs == 23
    without = [line for line in LINES if line["doc_id"] != 4]
    expected = load_run(write_run(tmp_path / "without", {"law": without})).metrics(names=("ece", "brier_score"))
    assert run.metrics("law", names=("ece", "brier_score")) == expected


def test_a_broken_run_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    lonely = folder / "org__model" / "results_2026-05-05T10-00-00.0.json"
    lonely.write_text(results(folder).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "org__model" / "results_2026-06-06T10-00-00.0.json").write_text("{", encoding="utf-8")
    run = load_run(folder)
    assert len(run) == 48
    assert len(run.notes) == 2
    assert f"{lonely}: no samples_*_2026-05-05T10-00-00.0.jsonl beside it" in run.notes[0]


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
    folder = folder_of(tmp_path)
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
    folder = folder_of(tmp_path)
    before = load_run(folder)
    inside = folder / "org__model"
    arguments = "pretrained__EleutherAI__pythia-70m,dtype__float16"
    for task in ("law", "tax"):
        path = samples(folder, task)
        (inside / f"{arguments}_{task}.jsonl").write_bytes(as_array(path.read_bytes()))
        path.unlink()
    (inside / "training_data.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    data = json.loads(results(folder).read_text(encoding="utf-8"))
    results(folder).unlink()
    if has_results:
        old = {key: data[key] for key in ("results", "configs", "versions", "n-shot")}
        old["config"] = {"model": "hf", "model_args": "pretrained=EleutherAI/pythia-70m,dtype=float16"}
        (inside / "results.json").write_text(json.dumps(old), encoding="utf-8")
    after = load_run(folder)
    assert after.tasks == before.tasks
    assert after.model == ("EleutherAI/pythia-70m" if has_results else arguments)
    assert after.metrics() == before.metrics()


@pytest.mark.parametrize("sanitized", ["/|=", '["<>:/|\\\\?*]+'])
def test_arrays_of_two_models_in_one_folder_go_with_their_results(tmp_path: Path, sanitized: str) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for seed, (model, name) in enumerate({"org/one": "results.json", "org/two": "two.json"}.items()):
        arguments = f"pretrained={model},revision=step:100"
        data = {"results": {"law": {"acc,none": 0.5}}, "config": {"model": "hf", "model_args": arguments}}
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
        path = folder / f"{re.sub(sanitized, '__', arguments)}_law.jsonl"
        path.write_text(json.dumps(make_lines("law", 6 + seed)), encoding="utf-8")
    found = {name: load_run(folder, select=Selection(model=name)) for name in ("org/one", "org/two")}
    assert {name: (run.model, len(run), run.notes) for name, run in found.items()} == {
        "org/one": ("org/one", 6, []),
        "org/two": ("org/two", 7, []),
    }


def test_copies_of_files_are_no_further_tasks(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    hidden = folder / "org__model" / ".ipynb_checkpoints"
    hidden.mkdir()
    for path in [samples(folder), results(folder)]:
        (hidden / f"{path.stem}-checkpoint{path.suffix}").write_bytes(path.read_bytes())
    assert len(load_run(folder)) == 48
    for path in [samples(folder), results(folder)]:
        path.with_name(f"{path.stem} (1){path.suffix}").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"2 runs of one model.*10-00-00.* \(1\): law, tax"):
        load_run(folder)


def test_results_without_a_time_go_with_the_only_samples(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    results(folder).rename(folder / "org__model" / "results.json")
    run = load_run(folder)
    assert (run.model, len(run), run.notes) == ("org/model", 48, [])


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for model in range(5):
        for month in range(1, 13):
            tasks = {task: make_lines(task, 6, seed=model) for task in ("law", "tax")}
            write_run(folder, tasks, model=f"org/model-{model}", time=f"2026-{month:02}-01T10-00-00.0")
    return folder


def test_the_error_lists_what_there_is(many: Path) -> None:
    done = invoke("report", str(many))
    assert done.exit_code == 2
    assert "holds 60 runs of 5 models" in done.stderr
    assert "org/model-4 (12 runs, 2026-01-01T10-00-00.0 to 2026-12-01T10-00-00.0: law, tax)" in done.stderr
    assert all(option in done.stderr for option in ("--latest", "--model PATTERN", "--task PATTERN"))


@pytest.mark.slow
def test_the_answer_needs_no_library_that_takes_seconds(many: Path) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from lm_eval_calibration.cli import app;"
        f"app(['report', {str(many)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "holds 60 runs of 5 models" in done.stderr
    slow = {"torch", "lm_eval", "transformers", "sklearn", "scipy.stats", "scipy.optimize", "pandas", "matplotlib"}
    assert not slow & set(done.stdout.split())


@pytest.mark.parametrize("pattern", ["org/model-3", "model-3", "*-3", "MODEL-3", "-3"])
def test_a_run_is_chosen(many: Path, pattern: str) -> None:
    run = load_run(many, select=Selection(latest=True, model=pattern, task="la*"))
    assert (run.model, run.tasks, len(run)) == ("org/model-3", ("law",), 6)
    assert run.configuration.dates == ["2026-12-01T10-00-00.0"]


@pytest.mark.parametrize("option", [["--model", "xyz"], ["--task", "xyz"]])
def test_what_matches_nothing_is_named(many: Path, option: list[str]) -> None:
    done = invoke("report", str(many), *option)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {option[0]} xyz: there are the ")


def test_runs_are_listed(many: Path, tmp_path: Path) -> None:
    done = invoke("runs", str(many), "--model", "model-2", "--format", "json")
    listed = json.loads(done.stdout)
    assert len(listed) == 12
    first = {key: listed[0][key] for key in ("model", "date", "tasks", "docs", "settings")}
    assert first == {
        "model": "org/model-2",
        "date": "2026-01-01T10-00-00.0",
        "tasks": ["law", "tax"],
        "docs": 12,
        "settings": "hf, 0-shot",
    }
    assert len(load_run(listed[0]["path"])) == 12
    for form, n_lines in (("table", 61), ("csv", 61), ("md", 62)):
        assert len(invoke("runs", str(many), "--format", form).stdout.splitlines()) == n_lines
    assert invoke("runs", str(tmp_path)).exit_code == 2


def test_a_group_is_a_choice_of_tasks(tmp_path: Path) -> None:
    tasks = {task: make_lines(task, 6) for task in ("law", "tax", "art")}
    folder = write_run(tmp_path, tasks, groups={"all": ["money", "art"], "money": ["law", "tax"]})
    assert load_run(folder, select=Selection(task="money")).tasks == ("law", "tax")


def test_a_file_of_a_group_s_name_holds_its_tasks(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"all": [*make_lines("law", 6), *make_lines("tax", 6)]})
    results(folder).unlink()
    assert load_run(folder).tasks == ("law", "tax")


def without_gold(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"calibration": line["calibration"] | {"gold": None, "correct": None}} for line in lines]


@pytest.mark.parametrize("command", ["report", "compare", "drift", "confidences", "recalibrate", "decide", "export"])
def test_a_task_without_a_sound_label_is_named_and_the_others_are_shown(tmp_path: Path, command: str) -> None:
    a, b = (
        write_run(tmp_path / name, {"law": make_lines("law", 60), "tax": without_gold(OTHER)}, model=name)
        for name in ("org/a", "org/b")
    )
    output = tmp_path / "written"
    given = [a, b] if command in ("compare", "drift", "confidences") else [a]
    options = ["--format", "md", "--output", str(output)] if command in ("report", "confidences") else []
    gate = ["--metrics", "acc,ece"] if command == "drift" else []
    done = invoke(command, *map(str, given), *options, *gate)
    assert (done.exit_code, done.stderr.count("tax: no doc has a sound gold label and a confidence")) == (0, 1)
    shown = output.read_text(encoding="utf-8") if options else done.stdout
    assert command in ("recalibrate", "decide") or "law" in shown.lower()


@pytest.mark.parametrize("command", ["compare", "drift", "confidences"])
def test_where_nothing_can_be_measured_the_exit_code_is_2(tmp_path: Path, command: str) -> None:
    runs = [write_run(tmp_path / name, {"tax": without_gold(OTHER)}, model=name) for name in ("org/a", "org/b")]
    done = invoke(command, *map(str, runs))
    assert done.exit_code == 2
    assert "error: tax: " in done.stderr


def test_a_gate_does_not_pass_what_has_no_answers_any_more(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"law": LINES, "tax": OTHER})
    new = write_run(tmp_path / "new", {"law": LINES, "tax": without_gold(OTHER)})
    done = invoke("drift", str(base), str(new))
    assert done.exit_code == 2
    assert "tax: no doc of NEW has a sound gold label and a confidence, as in BASE" in done.stdout
    assert invoke("drift", str(new), str(base), "--metrics", "acc").exit_code == 0


def test_a_group_of_which_a_part_is_wanted_is_no_group(tmp_path: Path) -> None:
    tasks = {task: make_lines(task, 6) for task in ("law", "tax", "art")}
    folder = write_run(tmp_path, tasks, groups={"all": ["money", "art"], "money": ["law", "tax"]})
    assert load_run(folder, select=Selection(task="law")).groups == {}
    assert load_run(folder, select=Selection(task="money")).groups == {"money": ("law", "tax")}


def test_compare_takes_patterns_and_the_latest_run_of_each_model(many: Path) -> None:
    done = invoke("compare", str(many), "--latest", "--task", "la*", "--metrics", "acc", "--format", "csv")
    assert done.exit_code == 0
    rows = [line.split(",")[:2] for line in done.stdout.splitlines()[1:]]
    assert rows == [["law", f"model-{i}"] for i in range(5)]


@pytest.mark.parametrize("name", ["details_arc_2024-01-01T10-00-00.parquet", "log.eval", "per_instance_stats.json"])
def test_pointers_to_other_programs_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LFS, encoding="utf-8")
    done = invoke("report", str(tmp_path))
    assert (done.exit_code, done.stderr) == (2, f"error: {tmp_path / name}: Git LFS pointer: run `git lfs pull`\n")


def test_links_to_files_and_folders_are_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "run").symlink_to(folder / "org__model", target_is_directory=True)
    assert len(load_run(tmp_path / "snapshot")) == 48


def test_a_run_of_generated_answers_is_read_line_by_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"qa": make_generated_lines("qa", 30, empty=2)})
    change(samples(folder, "qa"), lambda lines: lines[3]["calibration"].update(correct=2))
    with pytest.raises(UserError, match=r"line 4: correct is 2, not 0 or 1"):
        load_run(folder)


def test_calls_are_found_with_their_results(tmp_path: Path) -> None:
    found = find_sources([folder_of(tmp_path)])
    assert [(source.model, source.time, sorted(source.samples)) for source in found.sources] == [
        ("org/model", TIME, ["law", "tax"])
    ]
