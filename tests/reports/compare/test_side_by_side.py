"""Several runs in one report: every number is the one that compare has; docs that changed sides are those."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from logged_runs import make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.records import RECORD_KEY
from lm_eval_calibration.reports.compare.sentences import sentence
from lm_eval_calibration.reports.compare.table import Pair

TASKS = ("mmlu_anatomy_calibration", "mmlu_virology_calibration")


def other_answers(lines: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The same questions to another model, whose log-likelihoods are half of these and noise."""
    rng, new = np.random.default_rng(seed), json.loads(json.dumps(lines))
    for line in new:
        z = 0.5 * np.array(line[RECORD_KEY]["log_likelihoods"]) + rng.normal(0, 0.8, 4)
        line[RECORD_KEY]["log_likelihoods"] = (z - max(0, z.max()) - 1).tolist()
    return new


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    lines = {task: make_lines(task, n=120, text="<b>Which</b>?") for task in TASKS}
    other = {task: other_answers(of_task, 7) for task, of_task in lines.items()}
    return write_run(folder / "a", lines), write_run(folder / "b", other, model="org/large")


def made(runs: tuple[Path, ...], path: Path, *options: object) -> Any:
    done = run_command("report", *runs, "--output", path, *options)
    assert done.exit_code == 0, done.output
    assert f"{len(runs)} runs side by side" in done.stdout
    return path.read_bytes() if path.suffix in (".png", ".pdf") else path.read_text(encoding="utf-8")


def test_sentences_have_the_numbers_of_compare(runs: tuple[Path, Path], tmp_path: Path) -> None:
    data = json.loads(made(runs, tmp_path / "r.json"))
    compared = json.loads(run_command("compare", *runs, "--format", "json").stdout)
    assert data["pairs"] == compared["pairs"]
    pairs = [pair for pair in data["pairs"] if pair["task"] == "all" and pair["p_adjusted"] is not None]
    assert len(data["sentences"]) == len(pairs) >= 4
    for text, pair in zip(data["sentences"], pairs, strict=True):
        value, low, high = map(float, re.search(r"([-+.\d]+) \[([-+.\d]+), ([-+.\d]+)\]", text).groups())
        assert abs(value) == pytest.approx(abs(pair["difference"]), abs=6e-4)
        assert sorted(map(abs, (low, high))) == pytest.approx(sorted(map(abs, (pair["low"], pair["high"]))), abs=6e-4)
        assert low <= value <= high
        assert f"Holm over {data['n_tests']} test" in text
        assert ("is not shown to differ" in text) == (pair["p_adjusted"] > 0.05)
        assert ("lower by" in text) == (pair["p_adjusted"] <= 0.05 and pair["difference"] < 0)


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_a_page_says_why_a_difference_is_not_that_of_its_values(
    runs: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    page = tmp_path / f"page.{suffix}"
    run_command("report", *runs, "--output", page)
    text = page.read_text().replace("\\", "")
    assert "Differences of binned errors (ECE, ACE, Full-ECE) are of estimates" in text


def test_a_sentence_as_a_paper_has_it() -> None:
    pair = Pair("all", "ece", "A", "B", -0.05, -0.08, -0.02, 0.0001, 0.001, True, 1500, "")
    assert sentence(pair, 12) == (
        "B's ECE is lower by 0.050 [0.020, 0.080] than A's, paired, p = 0.001, Holm over 12 tests "
        "(all tasks, 1,500 docs)."
    )
    unclear = pair._replace(high=0.01, p_adjusted=0.2, paired=False, n_docs=1)
    assert sentence(unclear, 12) == (
        "B's ECE is not shown to differ from A's: -0.050 [-0.080, +0.010], unpaired, p = 0.200, Holm over 12 tests "
        "(all tasks, 1 doc)."
    )
    assert "p = 0.0003," in sentence(pair._replace(p_adjusted=0.0003), 12)
    assert "p < 0.0001," in sentence(pair._replace(p_adjusted=1e-9), 12)


def test_docs_that_changed_sides(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (found,) = json.loads(made(runs, tmp_path / "r.json"))["differences"]
    one, other = (load_run(path).to_frame().set_index("doc_hash") for path in runs)
    both = one.join(other.add_suffix("_b"))
    lost = both[(both.correct == 1) & (both.correct_b == 0)].sort_values("confidence_b", ascending=False)
    won = both[(both.correct == 0) & (both.correct_b == 1)]
    changed = found["changed"]
    assert (changed["n_both"], changed["n_lost"], changed["n_won"]) == (240, len(lost), len(won))
    assert [d["confidence_b"] for d in changed["lost"]] == lost.confidence_b.head(20).tolist()
    assert all(d["question"].startswith("<b>Which</b>?") and d["answer_a"] == d["right"] for d in changed["lost"])


def test_the_page_shows_them_all_and_no_markup_of_docs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = made(runs, tmp_path / "r.html")
    for said in ("Results, as sentences", "Docs that changed sides", "Accuracy against calibration", "polygon"):
        assert said in page
    assert "<b>Which" not in page
    assert "&lt;b&gt;Which" in page
    assert "Which" not in made(runs, tmp_path / "redacted.html", "--redact")
    compared = run_command("compare", *runs, "--format", "html").stdout
    assert "polygon" in compared
    assert "Which" not in compared  # compare has numbers alone


@pytest.mark.parametrize(("suffix", "begins"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", "<?xml")])
def test_pictures_have_every_run(runs: tuple[Path, Path], tmp_path: Path, suffix: str, begins: Any) -> None:
    content = made(runs, tmp_path / f"r.{suffix}", "--rename", "org/large=Large $1 model")
    assert content.startswith(begins)
    if suffix == "svg":
        assert "Large $1 model (ECE" in content
    assert content == made(runs, tmp_path / f"again.{suffix}", "--rename", "org/large=Large $1 model")


def test_names_can_be_given(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = run_command("report", f"small={runs[0]}", f"large={runs[1]}", "--output", tmp_path / "r.md")
    assert done.exit_code == 0, done.output
    assert "large's ECE is" in (tmp_path / "r.md").read_text()


def test_folders_of_one_run_stay_one_report(tmp_path: Path) -> None:
    for task in TASKS:
        write_run(tmp_path / task, {task: make_lines(task, n=30)})
    done = run_command("report", *(tmp_path / task for task in TASKS), "--output", tmp_path / "r.json")
    assert "60 docs of 2 tasks" in done.stdout
    one = run_command("report", tmp_path / TASKS[0], "--output", tmp_path / "r.json")
    assert "30 docs of 1 task;" in one.stdout


def test_compare_and_drift_say_what_to_run_next(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for command in ("compare", "drift"):
        done = run_command(command, *runs, "--metrics", "acc,ece")
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("Next: "))
        arguments = line.removeprefix("Next: lm-eval-calibration ").partition(" (")[0].split()
        arguments[-1] = str(tmp_path / "next.html")
        assert run_command(*arguments).exit_code == 0
        assert "Docs that changed sides" in (tmp_path / "next.html").read_text()
        assert "Next: " not in run_command(command, *runs, "--format", "json").stderr
