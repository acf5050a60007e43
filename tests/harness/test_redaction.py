"""`run --redact`: no word of a doc in what is written or printed, and the numbers as without it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from users_tasks import make_rows, write_task

from lm_eval_calibration import load_run
from lm_eval_calibration.cli import app
from lm_eval_calibration.harness.redaction import numbers_of, redacted_sample

WORDS = ("zugzwang", "quokka", "xylophone", "bivouac", "marzipan", "obsidian", "kerfuffle")


def secret_task(folder: Path, name: str) -> Path:
    own = {"options": list(WORDS[2:5]), "right": WORDS[2]}
    rows = [
        row | own | {"question": f"Is {WORDS[0]} a {WORDS[1]}?", "answer": row["answer"] % 3} for row in make_rows(6)
    ]
    return write_task(
        folder,
        name,
        rows,
        doc_to_text=f"{WORDS[5]}: {{{{question}}}}",
        doc_to_choice="options",
        doc_to_target="answer",
        description=f"{WORDS[6]} rules.\n\n",
    )


def run(folder: Path, *arguments: str) -> Any:
    given = ["run", "--model", "dummy", "--include_path", str(folder), "--output_path", str(folder / "out"), *arguments]
    return CliRunner().invoke(app, given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_word_of_a_doc_is_written_or_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret_task(tmp_path, "ward")
    system = ("--system_instruction", "Mind the quokka")
    done = run(tmp_path, "--tasks", "ward_calibration", "--redact", *system)
    assert done.exit_code == 0, done.output
    said = done.output + "".join(capfd.readouterr())
    assert "ward_calibration" in said
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".json", ".jsonl", ".parquet"]
    numbers = str(pq.read_table(next((tmp_path / "out").rglob("*.parquet"))).to_pylist())
    for text in (said, numbers, *(path.read_bytes().decode("latin-1") for path in files)):
        assert not [word for word in WORDS if word in text.lower()]
    loaded = load_run(tmp_path / "out")
    assert len(loaded) == 6
    table = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text(encoding="utf-8"))
    for name in ("acc", "ece", "brier_score", "auroc"):
        found = loaded.metrics("ward_calibration", names=(name,))[name].value
        assert found == pytest.approx(table["results"]["ward_calibration"][f"{name},none"], abs=1e-12, nan_ok=True)
    for form in ("html", "md", "json"):
        output = tmp_path / f"report.{form}"
        assert CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--output", str(output)]).exit_code == 0
        assert not [word for word in WORDS if word in output.read_text(encoding="utf-8").lower()]


@pytest.mark.parametrize("option", ["--write_out", "--use_cache=x", "--cache_requests", "--show_config"])
def test_options_that_keep_texts_are_refused(tmp_path: Path, option: str) -> None:
    done = run(tmp_path, "--tasks", "ward_calibration", "--redact", option)
    assert done.exit_code == 2
    assert f"{option.split('=', maxsplit=1)[0]} prints or keeps texts of docs" in done.stderr


def test_errors_quote_no_doc(tmp_path: Path) -> None:
    rows = [row | {"options": list(WORDS[2:5]), "right": WORDS[1]} for row in make_rows(3)]
    write_task(tmp_path, "ward", rows, doc_to_text="question", doc_to_choice="options", doc_to_target="right")
    shown = run(tmp_path, "--tasks", "ward_calibration")
    assert shown.exit_code == 2
    assert WORDS[1] in shown.stderr
    redacted = run(tmp_path, "--tasks", "ward_calibration", "--redact")
    assert redacted.exit_code == 2
    assert not [word for word in WORDS if word in redacted.stderr]
    assert "doc 0" in redacted.stderr


def test_numbers_stay_and_texts_go() -> None:
    sample = {
        "doc_id": 3,
        "doc": {"q": "secret"},
        "target": "secret",
        "arguments": [("secret", " A")],
        "resps": [[(-1.5, True)], ["secret"]],
        "filtered_resps": [(-1.5, True)],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": "ab",
        "prompt_hash": "cd",
        "target_hash": "ef",
        "acc": 1.0,
        "ece": "see calibration",
        "f1": (0, "secret"),
        "calibration": {"task": "t"},
        "note": "secret",
    }
    redacted = redacted_sample(sample)
    assert "secret" not in json.dumps(redacted)
    assert redacted["resps"] == [[[-1.5, True]], [None]]
    assert (redacted["acc"], redacted["f1"], redacted["calibration"]) == (1.0, [0, None], {"task": "t"})
    assert {"doc", "target", "arguments", "resps", "filtered_resps"} <= set(redacted)
    assert numbers_of({"a": ["x", 2]}) == {"a": [None, 2]}
