"""Files broken in every way: what is broken is named in one line, and what is sound is used."""

import gzip
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changed_files import LFS, LINES, OTHER, change, in_line, record, results_of, samples_of, summary, two_tasks
from commands import run_command as invoke
from logged_runs import make_generated_lines, make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError

DEEP = "[" * 3000 + "]" * 3000


def lacking(field: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        change(samples_of(folder), lambda lines: lines[4]["calibration"].pop(field))

    return harm


def raw(text: str | bytes) -> Callable[[Path], None]:
    """Put this in place of the law task's file."""

    def harm(folder: Path) -> None:
        samples_of(folder).write_bytes(text if isinstance(text, bytes) else text.encode())

    return harm


def cut(folder: Path) -> None:
    path = samples_of(folder)
    path.write_bytes(path.read_bytes()[:-30])


def cut_at_a_line(folder: Path) -> None:
    path = samples_of(folder)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")


def cut_gzip(folder: Path) -> None:
    path = samples_of(folder)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-400])
    path.unlink()


def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Put something else in the place of the law task's file."""

    def harm(folder: Path) -> None:
        path = samples_of(folder)
        path.unlink()
        make(path)

    return harm


def twice(folder: Path) -> None:
    change(samples_of(folder), lambda lines: lines.__setitem__(5, lines[4]))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, r"line 24: not JSON, cut short"),
    "cut at a line": (cut_at_a_line, r"counts 24 docs of law, but samples_law_.* has 12"),
    "cut gzip": (cut_gzip, r"samples_law_.*gz: "),
    "no file": (
        instead(lambda path: None),
        r"results_.*json counts 24 docs of law, but samples_law_.* has 0; to go on",
    ),
    "no record": (
        lambda folder: change(samples_of(folder), lambda lines: lines[4].pop("calibration")),
        r"line 5: no 'calibration' record",
    ),
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
    "dangling": (instead(lambda path: path.symlink_to("nowhere")), r"samples_law_.*: No such file"),
    "loop": (instead(lambda path: path.symlink_to(path)), r"samples_law_.*: .*symbolic links"),
    "FIFO": (instead(os.mkfifo), r"not a regular file"),
    "directory": (instead(Path.mkdir), r"counts 24 docs of law"),
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
            samples_of(folder), lambda lines: [line["calibration"].update(task="art") for line in lines]
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


def odd_certificates(folder: Path) -> None:
    certificates = [{"backend": 7, "versions": [1], "reference": 3, "suspect": {"a": 1}}, {"reference": {"suspect": 1}}]

    def harm(lines: list[Any]) -> None:
        for line, certificate in zip(lines, certificates, strict=False):
            line["calibration"]["certificate"] = certificate

    change(samples_of(folder), harm)


def cut_gzip_beside(folder: Path) -> None:
    path = samples_of(folder)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:50])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_and_what_is_sound_is_used(tmp_path: Path, name: str) -> None:
    harm, message = BROKEN[name]
    folder = two_tasks(tmp_path)
    sound = load_run(samples_of(folder, "tax")).metrics(names=("acc", "ece"))
    harm(folder)
    run = load_run(folder)
    assert run.tasks == ("tax",)
    assert run.metrics(names=("acc", "ece")) == sound
    assert len(run.notes) == 1
    assert re.search(message, run.left_out[next(iter(run.left_out))])
    if name != "object of nothing":  # without a record it could be a stock run's, which others don't wait for
        with pytest.raises(UserError, match=message):
            load_run(folder, is_strict=True)
    samples_of(folder, "tax").unlink()
    with pytest.raises(UserError, match=f"{message}|no samples_"):
        load_run(folder)


@pytest.mark.parametrize(
    "command", ["report", "decide", "recalibrate", "drift", "compare", "export", "runs", "evidence"]
)
@pytest.mark.parametrize("name", random.Random(0).sample(sorted(BROKEN), 5))
def test_no_command_ends_in_a_traceback(tmp_path: Path, name: str, command: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sound = write_run(tmp_path / "sound", {"law": LINES, "tax": OTHER}, model="org/sound")
    folder = two_tasks(tmp_path)
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


def test_odd_certificates_end_no_command(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    before = load_run(folder).metrics(names=("acc", "ece"))
    odd_certificates(folder)
    assert load_run(folder).metrics(names=("acc", "ece")) == before
    for command in ("report", "recalibrate", "decide", "evidence", "runs"):
        assert invoke(command, str(folder), "--output", str(tmp_path / command)).exit_code in (0, 1, 2)


def test_a_broken_file_beside_the_same_task_s_sound_one(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    before = load_run(folder).metrics(names=("acc", "ece"))
    cut_gzip_beside(folder)
    run = load_run(folder)
    assert run.tasks == ("law", "tax")
    assert run.metrics(names=("acc", "ece")) == before
    (note,) = run.notes
    assert ".gz" in note
    assert "law is left out" not in note


@pytest.mark.parametrize("value", [0, -5, "abc", 10**9, True, 2.5])
def test_a_number_of_bins_that_can_t_be_is_named(tmp_path: Path, value: object) -> None:
    folder = two_tasks(tmp_path)
    summary(results_of(folder), configs={"law": {"metadata": {"calibration": {"n_bins": value}}}})
    with pytest.raises(UserError, match=r"configs.law.metadata.calibration.n_bins is .*, not 1 to 100"):
        load_run(folder)
    assert len(load_run(folder, n_bins=10)) == 48


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"results": ', "Expecting value"),
        ("[1]", "these are not results of the harness"),
        ('{"results": 3}', "these are not results of the harness"),
        ('{"results": {}, "configs": []}', r"configs is \[\], not object"),
        ('{"results": {}, "n-samples": {"law": {"effective": "x"}}}', r"n-samples\[...\]\[...\] is not int or null"),
        ('{"results": {}, "group_subtasks": {"a": 1}}', r"group_subtasks\[...\] is not array"),
        ('{"results": {}, "config": 1}', "config is 1, not object"),
    ],
)
def test_broken_results_are_named_and_the_samples_used(tmp_path: Path, content: str, message: str) -> None:
    folder = two_tasks(tmp_path)
    path = results_of(folder)
    path.write_text(content, encoding="utf-8")
    run = load_run(folder)
    assert (run.tasks, run.model) == (("law", "tax"), "org__model")
    assert re.search(f"{path.name}: .*{message}", run.notes[0])
    with pytest.raises(UserError, match=f"{path.name}: .*{message}"):
        load_run(path)


def test_a_doc_without_a_finite_log_likelihood_is_out_and_named(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    record(log_likelihoods=[None] * 4)(folder)
    run = load_run(folder)
    assert run.notes == ["law: 1 doc has no finite log-likelihood and no part in calibration: doc 4"]
    assert run.metrics("law", names=("ece",))["ece"].n_docs == 23
    without = [line for line in LINES if line["doc_id"] != 4]
    expected = load_run(write_run(tmp_path / "without", {"law": without})).metrics(names=("ece", "brier_score"))
    assert run.metrics("law", names=("ece", "brier_score")) == expected


def test_a_broken_run_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = two_tasks(tmp_path)
    lonely = folder / "org__model" / "results_2026-05-05T10-00-00.0.json"
    lonely.write_text(results_of(folder).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "org__model" / "results_2026-06-06T10-00-00.0.json").write_text("{", encoding="utf-8")
    run = load_run(folder)
    assert len(run) == 48
    assert len(run.notes) == 2
    assert f"{lonely}: no samples_*_2026-05-05T10-00-00.0.jsonl beside it" in run.notes[0]


@pytest.mark.parametrize("name", ["details_arc_2024-01-01T10-00-00.parquet", "log.eval", "per_instance_stats.json"])
def test_pointers_to_other_programs_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LFS, encoding="utf-8")
    done = invoke("report", str(tmp_path))
    assert (done.exit_code, done.stderr) == (2, f"error: {tmp_path / name}: Git LFS pointer: run `git lfs pull`\n")


def test_a_run_of_generated_answers_is_read_line_by_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"qa": make_generated_lines("qa", 30, empty=2)})
    change(samples_of(folder, "qa"), lambda lines: lines[3]["calibration"].update(correct=2))
    with pytest.raises(UserError, match=r"line 4: correct is 2, not 0 or 1"):
        load_run(folder)


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
