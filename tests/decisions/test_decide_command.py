"""``lm-eval-calibration decide``: what it prints, writes and refuses."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_runs import write_run
from typer.testing import CliRunner, Result

from lm_eval_calibration.cli import app
from lm_eval_calibration.results import load_run

TASKS = {"anatomy_calibration": 900, "law_calibration": 600}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", tasks=TASKS, sharpness=1.0)


def decide(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["decide", *map(str, arguments)])


def said(*arguments: str | Path) -> str:
    result = decide(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_answer_comes_first(run: Path) -> None:
    text = said(run, "--error_rate", "0.25", "--cost_wrong", "10", "--cost_abstain", "2")
    lines = text.splitlines()
    assert lines[0].startswith("It may answer from a confidence of 0.")
    assert lines[1].startswith("The promise: at most 25% of its answers are wrong.")
    assert "If a wrong answer costs 10 and an abstention 2, the cheapest is" in text
    assert re.search(r"^lac *\t", text, re.MULTILINE)


def test_where_it_earns_no_threshold_it_says_what_it_takes(run: Path) -> None:
    assert "It may not answer alone: no confidence is shown to keep wrong answers to 1%" in said(
        run, "--error_rate", "0.01"
    )


def test_json_is_what_python_decides(run: Path) -> None:
    found = json.loads(said(run, "--error_rate", "0.25", "--format", "json"))
    decision = load_run(run).decide()
    assert found["docs"] == dict(zip(("ordering", "testing", "others"), decision.n_docs, strict=True))
    assert found["groups"][""]["value"] > 0.5
    assert found["prediction_sets"]["lac"]["shown"]["coverage"]["value"] == pytest.approx(0.75, abs=0.06)


def test_a_decision_is_saved_drawn_and_checked(run: Path, tmp_path: Path) -> None:
    file, picture = tmp_path / "d.json", tmp_path / "d.svg"
    said(run, "--error_rate", "0.25", "--by", "task", "--output", file, "--picture", picture)
    saved = json.loads(file.read_text())
    assert set(saved["thresholds"]) == set(TASKS)
    assert saved["tasks"] == list(TASKS)
    assert "with a guarantee" in picture.read_text()
    new = write_run(tmp_path / "new", tasks=TASKS, sharpness=1.0, docs=5, seed=6)
    result = decide("--apply", file, new)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("holds: nothing speaks against the promise (1,500 new docs)")
    again = said("--apply", file, run)
    assert "docs are left out: the decision was made on them" in again


def test_another_model_is_noticed(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    said(run, "--error_rate", "0.25", "--output", file)
    other = write_run(tmp_path / "other", tasks=TASKS, sharpness=6.0, docs=5, seed=6)
    result = decide("--apply", file, other, "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"] == "broken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--error_rate", "1.5"], "error_rate is 1.5"),
        (["--confidence_level", "1"], "confidence_level is 1; it must be above 0 and below 1"),
        (["--cost_wrong", "3"], "--cost_wrong and --cost_abstain belong together"),
        (["--cost_wrong", "-3", "--cost_abstain", "1"], "costs are -3 and 1; both must be above 0"),
        (["--by", "doc.ward"], "doc 0 of anatomy_calibration"),
        (["--by", "ward"], "docs can't be grouped by ward"),
        (["--fit_on", "law"], "it is FIELD=VALUE"),
        (["--fit_on", "task=none"], "the calibration split is empty"),
        (["--picture", "x.jpg"], "x.jpg: a picture is a file .svg, .png or .pdf"),
        (["--format", "xml"], "no format 'xml'"),
        (["--apply", "none.json"], "none.json: "),
    ],
)
def test_bad_input_is_named(run: Path, arguments: Sequence[str], message: str) -> None:
    result = decide(run, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_apply_takes_what_it_needs_from_its_file(run: Path) -> None:
    result = decide(run, "--apply", "d.json", "--error_rate", "0.1")
    assert result.exit_code == 2
    assert "--apply takes what it needs from its file" in result.output


def test_all_docs_decided_on(run: Path, tmp_path: Path) -> None:
    said(run, "--fit_on", "task=law_calibration", "--output", tmp_path / "d.json")
    only = write_run(tmp_path / "only", tasks={"law_calibration": 600}, sharpness=1.0)
    result = decide("--apply", tmp_path / "d.json", only)
    assert result.exit_code == 2
    assert "made on all docs here (600 docs, or their clusters)" in result.output


def test_a_decision_of_another_model_or_task_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    said(run, "--error_rate", "0.25", "--output", file)
    other = write_run(tmp_path / "other", model="org/other", tasks=TASKS, docs=5)
    result = decide("--apply", file, other)
    assert result.exit_code == 2
    assert "the decision was made for org/model, these results are of org/other" in result.output
    more = write_run(tmp_path / "more", tasks={**TASKS, "art_calibration": 30}, docs=5)
    result = decide("--apply", file, more)
    assert result.exit_code == 2
    assert "not on art_calibration" in result.output
    fewer = write_run(tmp_path / "fewer", tasks={"law_calibration": 600}, sharpness=1.0, docs=5)
    assert "no docs of anatomy_calibration, which the decision was made on" in said("--apply", file, fewer)


def test_without_a_threshold_nothing_was_promised(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    assert "Nothing is promised." in said(run, "--error_rate", "0.01", "--output", file)
    new = write_run(tmp_path / "new", tasks=TASKS, sharpness=1.0, docs=5, seed=6)
    result = decide("--apply", file, new)
    assert result.exit_code == 0
    assert result.stdout.startswith("nothing promised: the decision has no threshold")
    assert "holds" not in result.stdout


def test_docs_of_the_same_clusters_are_left_out(tmp_path: Path) -> None:
    """Docs that were never decided on, but are of passages that were."""
    made = write_run(tmp_path / "run", tasks={"law_calibration": 600}, sharpness=1.0, passages=40)
    file = tmp_path / "d.json"
    said(made, "--error_rate", "0.4", "--cluster", "doc.passage", "--output", file)
    new = write_run(tmp_path / "new", tasks={"law_calibration": 600}, sharpness=1.0, docs=5, passages=60)
    text = decide("--apply", file, new, "--cluster", "doc.passage", "--format", "json").stdout
    counted = json.loads(text)
    assert counted["n_docs"] + counted["n_left_out"] == 600
    decided = len(json.loads(file.read_text())["calibrated_clusters"])
    assert 15 < decided < 35
    assert counted["n_left_out"] == 10 * decided  # of 60 passages with 10 docs each


def test_one_cluster_is_too_few(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", tasks={"law_calibration": 60}, passages=1)
    result = decide(made, "--cluster", "doc.passage")
    assert result.exit_code == 2
    assert "the 60 docs are of 1 cluster" in result.output


def test_groups_that_are_off_are_shown(tmp_path: Path) -> None:
    tasks = {"anatomy_calibration": 300, "law_calibration": 300}
    made = write_run(tmp_path / "run", tasks=tasks, sharpness=4.0, passages=3)
    text = said(made, "--groups", "all")
    assert "Does its confidence hold in every group? In " in text
    assert re.search(r"^doc.passage = 1 *\t", text, re.MULTILINE)
    assert re.search(r"^task = law_calibration, doc.passage = 0 *\t", text, re.MULTILINE)
    assert "fields that make no groups: doc.question: more than 100 values" in text
    only = json.loads(said(made, "--groups", "doc.passage", "--format", "json"))["group_errors"]
    assert only["fields"] == ["doc.passage"]
    assert {name for one in only["groups"] for name, _ in one["group"]} == {"doc.passage"}
    assert all(one["low"] <= one["gap"] <= one["high"] for one in only["groups"])


def test_a_field_that_makes_no_groups_is_named(run: Path) -> None:
    for field, why in (("doc.question", "more than 100 values"), ("doc.ward", "no doc has it"), ("ward", "ward")):
        result = decide(run, "--groups", field)
        assert result.exit_code == 2
        assert why in result.output
