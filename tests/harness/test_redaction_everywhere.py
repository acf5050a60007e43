"""`--redact`: 200 planted words, through every command, flag, failure and log level; none is written or said."""

import json
import logging
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner
from users_tasks import write_task

from lm_eval_calibration import load_run
from lm_eval_calibration.cli import app
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.redacted_errors import RedactedError, description, redacted_errors
from lm_eval_calibration.harness.redaction import rename_clusters
from lm_eval_calibration.records import cluster_of

WORDS = [f"zq{i:03d}xj" for i in range(200)]

HOSTILE = """
import logging, sys, threading, warnings

def say(doc):
    text = str(doc)
    print(text)
    print(text, file=sys.stderr)
    sys.stderr.write(text)
    warnings.warn(text)
    logging.getLogger("theirs").error(text)
    logging.getLogger("lm_eval.theirs").warning("about %s", text)
    logging.getLogger("lm_eval").exception(text)
    thread = threading.Thread(target=fail, args=(doc,))
    thread.start()
    thread.join()

class Loud:
    def __init__(self, doc):
        self.doc = doc
    def __del__(self):
        fail(self.doc)

def fail(doc):
    raise RuntimeError(f"can't use {doc}, don't try")

def loud_docs(dataset):
    for doc in dataset:
        say(doc)
        Loud(doc)
    return dataset

def failing_docs(dataset):
    for doc in dataset:
        fail(doc)

def failing_field(doc):
    fail(doc)

def failing_results(doc, results):
    fail((doc, results))
"""


def plant(folder: Path, name: str = "ward", **keys: Any) -> Path:
    """A task with a planted word, or several, wherever a text can stand."""
    words = (WORDS[i % 190] for i in count())  # of the last ten each has its own place
    rows = [
        {
            "question": f"Can't the {next(words)} say {next(words)}?",
            "options": [f"it's {next(words)}" for _ in range(3)],
            "answer": i % 3,
            "note": {"deep": [next(words)]},
            "patient": next(words),
            next(words): next(words),
        }
        for i in range(12)
    ]
    rows = [{**dict.fromkeys((k for row in rows for k in row), ""), **row} for row in rows]
    path = write_task(
        folder,
        name,
        rows,
        **{
            "doc_to_text": f"{WORDS[190]} {{{{question}}}}",
            "doc_to_choice": "options",
            "doc_to_target": "answer",
            "description": f"The {WORDS[191]} don't count.\n\n",
            "fewshot_config": {"sampler": "first_n", "samples": rows[:2], "fewshot_delimiter": f"\n{WORDS[192]}\n"},
            "target_delimiter": f" {WORDS[193]} ",
            "metadata": {"version": 1, "note": WORDS[194], "calibration": {"cluster": "doc.patient"}},
            **keys,
        },
    )
    (folder / "utils.py").write_text(HOSTILE, encoding="utf-8")
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, rows[:3])), encoding="utf-8")
    config = path.read_text(encoding="utf-8").replace(f"{name}.jsonl", f"{WORDS[195]}.jsonl")
    (folder / f"{name}.jsonl").rename(folder / f"{WORDS[195]}.jsonl")
    path.write_text(config, encoding="utf-8")
    return path


def planted_in(text: str) -> list[str]:
    return [word for word in WORDS if word in text.lower()]


def written(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(str(path.relative_to(folder)) + text_of(path) for path in files)


def text_of(path: Path) -> str:
    if path.suffix == ".parquet":
        numbers = pq.read_table(path)
        return f"{numbers.schema.metadata}{numbers.to_pylist()}"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMEVAL_LOG_LEVEL", "DEBUG")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def run(folder: Path, *arguments: str, task: str = "ward_calibration") -> Any:
    given = ["run", "--model", "dummy", "--include_path", str(folder), "--output_path", str(folder / "out"), "--redact"]
    given += ["--tasks", task, "--num_fewshot", "2", "--system_instruction", f"Mind the {WORDS[196]}", *arguments]
    level = logging.getLogger("lm_eval").level
    try:
        logging.getLogger("lm_eval").setLevel(logging.DEBUG)
        return CliRunner().invoke(app, given)
    finally:
        logging.getLogger("lm_eval").setLevel(level)


def check(done: Any, out: Path, capfd: pytest.CaptureFixture[str], code: int) -> str:
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    said = done.output + done.stderr + "".join(capfd.readouterr())
    assert done.exit_code == code, said
    assert not planted_in(said)
    assert not planted_in(written(out))
    return said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_prints_and_logs_all_it_knows(
    out: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    plant(out.parent, process_docs="!utils.loud_docs")
    said = check(run(out.parent), out, capfd, 0)
    assert "ward_calibration" in said  # in the table
    assert not planted_in(caplog.text)
    assert len(list(out.rglob("*.json*"))) == 2
    assert sys.stdout.write is not None
    pages = [["report", str(out), "--output", f"r{i}.{form}"] for form in ("html", "md", "json") for i in (0, 1)]
    commands = [
        *([*page, "--redact"] if page[-1][1] == "1" else page for page in pages),
        ["compare", str(out), str(out)],
        ["drift", str(out), str(out)],
        ["confidences", str(out)],
        ["decide", str(out)],
        ["export", str(out)],
        ["recalibrate", str(out), "--output", "map.json"],
        ["evidence", str(out)],
    ]
    written_before = {path for path in out.parent.rglob("*") if path.is_file()}
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code in (0, 1, 2)
        assert not planted_in(done.output + done.stderr + "".join(capfd.readouterr()))
    new = {path for path in out.parent.rglob("*") if path.is_file()} - written_before
    assert len(new) >= 5
    assert not [path for path in new if planted_in(text_of(path))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"process_docs": "!utils.failing_docs"},
        {"doc_to_text": "!utils.failing_field"},
        {"doc_to_choice": "!utils.failing_field"},
        {"doc_to_target": "!utils.failing_field"},
        {"doc_to_text": "{{question.nothing.at_all}}"},
        {"doc_to_target": "question"},
        {"doc_to_choice": "question"},
        {"doc_to_target": "{{[0, 1]}}"},
        {"metadata": {"version": 1, "calibration": {"cluster": "doc.nothing"}}},
        {"fewshot_split": None, "fewshot_config": {"sampler": "first_n", "samples": [{"question": WORDS[0]}]}},
        {"output_type": "generate_until", "doc_to_choice": None, "process_results": "!utils.failing_results"},
        {"dataset_kwargs": {"data_files": {"test": f"{WORDS[0]}.jsonl"}}},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_every_failure(out: Path, capfd: pytest.CaptureFixture[str], keys: dict[str, Any]) -> None:
    plant(out.parent, **keys)
    done = run(out.parent)
    said = check(done, out, capfd, done.exit_code)
    assert done.exit_code in (1, 2), said
    assert "Error" in done.stderr
    assert done.stderr.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_stock_task_fails_as_quietly(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plant(out.parent, process_docs="!utils.failing_docs")
    said = check(run(out.parent, task="ward"), out, capfd, 1)
    assert "RuntimeError" in said


@pytest.mark.parametrize(
    "given",
    [
        ("--write",),
        ("--write_out",),
        ("-w",),
        ("-ws",),
        ("-sw",),
        ("--use_cach", "x"),
        ("--use_cache=x",),
        ("-cDB",),
        ("-c", "x"),
        ("--cache_req",),
        ("--cache_requests", "refresh"),
        ("--show",),
        ("--show_config",),
    ],
)
def test_options_are_refused_however_they_are_written(tmp_path: Path, given: tuple[str, ...]) -> None:
    done = run(tmp_path, *given)
    assert done.exit_code == 2
    assert "prints or keeps texts of docs" in done.stderr


@pytest.mark.parametrize("flag", ["-C{}", "--config={}", "-C {}"])
@pytest.mark.parametrize("key", ["write_out", "use_cache", "show_config", "cache_requests"])
def test_options_are_refused_in_a_configuration(tmp_path: Path, flag: str, key: str) -> None:
    config = tmp_path / "run.yaml"
    value: Any = {"use_cache": "x", "cache_requests": {"cache_requests": True}}.get(key, True)
    config.write_text(yaml.safe_dump({key: value, "system_instruction": WORDS[0]}), encoding="utf-8")
    done = run(tmp_path, *flag.format(config).split())
    assert done.exit_code == 2
    assert f"--{key} prints or keeps texts of docs" in done.stderr
    assert not planted_in(done.output + done.stderr)


def test_clusters_can_not_be_guessed_and_are_the_same_in_runs_on_the_same_docs() -> None:
    def samples(names: list[str]) -> dict[str, list[dict[str, Any]]]:
        docs = enumerate(names)
        record = {
            i: {"task": "t", "doc_id": i, "doc_hash": str(i), "cluster": cluster_of({"n": n}, "doc.n")} for i, n in docs
        }
        return {"t": [{"calibration": dict(record[i])} for i in record]}

    def renamed(names: list[str]) -> list[str]:
        found = samples(names)
        rename_clusters(found)
        return [sample["calibration"]["cluster"] for sample in found["t"]]

    first = renamed(["Ann", "Bob", "Ann", "Cy"])
    assert first[0] == first[2]
    assert len(set(first)) == 3
    assert renamed(["Dan", "Eve", "Dan", "Flo"]) == first  # nothing of the names is left
    assert not set(renamed(["Ann", "Bob", "Ann", "Bob"])) & set(first)
    assert all(int(cluster, 16) for cluster in first)


def test_an_error_is_its_type_our_line_and_ids() -> None:
    task_name, doc_id = "ward", 7

    def process(task_name: str, doc_id: int) -> None:
        raise ValueError(f"a secret of {task_name} {doc_id}")

    with pytest.raises(RedactedError) as caught, redacted_errors():
        process(task_name, doc_id)
    assert str(caught.value) == "ValueError, task ward, doc 7 (--redact leaves out what it says)"
    assert caught.value.exit_code == 1
    with pytest.raises(UserError) as of_user:
        load_run("/nowhere at all")
    assert description(of_user.value).startswith("UserError at lm_eval_calibration/results/files.py, line ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_report_and_a_statement_name_no_gold_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path)
    other = plant(tmp_path, "other", doc_to_target="{{options[answer]}}")
    assert other.exists()
    given = ["--model", "dummy", "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    assert CliRunner().invoke(app, ["run", *given, "--tasks", "ward_calibration,other"]).exit_code == 0
    (samples,) = (tmp_path / "out").rglob("samples_other_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["target"], line["acc"] = f"can't {WORDS[5]}", None
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    capfd.readouterr()
    for command in (
        ["report", "--redact", "--output", str(tmp_path / "r.html")],
        ["evidence", "--output", str(tmp_path / "e")],
    ):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        said = done.output + done.stderr + "".join(capfd.readouterr())
        assert not planted_in(said)
    assert "other is left out" in said or "other" in (tmp_path / "e.json").read_text(encoding="utf-8")
    assert not planted_in((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not [name for name in ("e.html", "e.json") if WORDS[5] in (tmp_path / name).read_text(encoding="utf-8")]
