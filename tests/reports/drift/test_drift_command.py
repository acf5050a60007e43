"""The command drift, on runs as the harness writes them."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from commands import cells, run_command
from made_runs import write_run

TASKS = {"anatomy_calibration": 300, "virology_calibration": 200}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(Path("base"), tasks=TASKS)


def drift(*arguments: object) -> Any:
    return run_command("drift", *arguments)


def rows(output: str) -> dict[tuple[str, str], list[str]]:
    found = [cells(line) for line in output.splitlines() if line.count("\t") > 3]
    return {(row[0], row[1]): row for row in found[1:]}


def test_a_sharper_model_has_drifted(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, sharpness=3.5)
    done = drift(base, new, "--metrics", "acc,ece,auroc,brier_score")
    assert done.exit_code == 1, done.output
    table = rows(done.stdout)
    assert len(table) == 12
    assert table["all", "ece"][-1] == "drifted"
    assert table["all", "acc"][-1] in ("within", "unclear")
    assert done.stdout.splitlines()[-1].startswith("drifted: ")
    assert "12 one-sided tests" in done.stdout


def test_the_same_model_run_again_has_not(base: Path) -> None:
    done = drift(base, write_run(Path("new"), tasks=TASKS, seed=1))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("no drift shown: ")


def test_a_tolerance_wide_enough_lets_it_pass(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, sharpness=3.5)
    arguments = (base, new, "--metrics", "ece", "--tolerance", "0.01")
    assert drift(*arguments).exit_code == 1
    done = drift(*arguments, "--tolerance", "ece=0.5", "--tolerance", "mce=1")
    assert done.exit_code == 0, done.output
    assert {row[-1] for row in rows(done.stdout).values()} == {"within"}
    assert {metric for _, metric in rows(done.stdout)} == {"ece", "mce"}


def test_other_docs_are_compared_unpaired(base: Path) -> None:
    done = drift(base, write_run(Path("new"), tasks=TASKS, docs=5), "--metrics", "ece")
    assert done.exit_code == 0, done.output
    assert "anatomy_calibration: the runs have different docs, so they are compared unpaired" in done.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shots": 5}, "virology_calibration: shots: 0 in BASE, 5 in NEW"),
        ({"version": 2.0}, "task version: 1.0 in BASE, 2.0 in NEW"),
        ({"n_bins": 15}, "n_bins: 10 in BASE, 15 in NEW; --n_bins computes both alike"),
        ({"prompt": "other"}, "virology_calibration: prompts of the same docs are not the same"),
        ({"template": "abc"}, "chat template: not the same"),
        ({"tokenizer": "another"}, "full_ece is compared within one tokenizer only"),
        ({"tokenizer": None}, "leave it out by --metrics"),
        ({"certificate": {"suspect": "shifted by one position"}}, "NEW: shifted by one position"),
        ({"tasks": {"other_calibration": 30}}, "no task in common: BASE has anatomy_calibration"),
        ({"tasks": {"anatomy_calibration": 300}}, "virology_calibration: NEW has no samples"),
    ],
)
def test_runs_that_are_not_comparable_say_why(options: dict[str, Any], reason: str, base: Path) -> None:
    tasks = {task: n for task, n in TASKS.items() if n < 300 or "tasks" in options}
    if "tasks" not in options:
        base = write_run(Path("small"), tasks=tasks)
    new = write_run(Path("new"), **{"tasks": tasks, "seed": 1, **options})
    done = drift(base, new, "--format", "json", "--metrics", "ece,full_ece")
    assert done.exit_code == 2, done.output
    data = json.loads(done.stdout)
    assert data["verdict"] == "not comparable"
    assert reason in " ".join(data["reasons"])
    assert data["tests"] == []


def test_numbers_obtained_otherwise_are_flagged(base: Path) -> None:
    certificate = {"backend": "LocalCompletionsAPI", "distributions": "top_k", "k": 20, "dtype": "bfloat16"}
    new = write_run(Path("new"), tasks=TASKS, seed=1, certificate=certificate | {"shared_prefixes": True})
    notes = json.loads(drift(base, new, "--format", "json").stdout)["notes"]
    for said in (
        "backend: HFLM against LocalCompletionsAPI",
        "probabilities of the vocabulary: not recorded against the most probable only",
        "entries of the vocabulary that the server returns: not recorded against 20",
        "shared beginnings of prompts computed once: not recorded against yes",
        "dtype: not recorded against bfloat16",
    ):
        assert f"different in the two runs: {said}" in notes


def test_what_is_not_comparable_is_an_error_for_ci(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, shots=5)
    cases = ET.fromstring(drift(base, new, "--format", "junit").stdout).iter("error")
    assert "shots: 0 in BASE, 5 in NEW" in next(cases).attrib["message"]
    assert drift(base, new, "--format", "github").stdout.startswith("::error title=not comparable::anatomy_calibration")


def test_what_is_not_comparable_can_be_left_out(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, tokenizer="another", n_bins=15)
    assert drift(base, new, "--metrics", "ece,auroc", "--n_bins", 10).exit_code == 0


def test_runs_without_token_distributions_are_tested_by_the_rest(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), seed=seed, tokenizer=None) for seed in range(2)]
    done = drift(*runs)
    assert done.exit_code == 0, done.output
    assert "full_ece is not tested: the runs have no token distributions" in done.stdout
    assert drift(*runs, "--metrics", "full_ece").exit_code == 2


@pytest.mark.slow
def test_formats_for_ci(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, sharpness=3.5)
    data = json.loads(drift(base, new, "--format", "json", "--metrics", "acc,ece").stdout)
    assert data["verdict"] == "drifted"
    failing = {(t["task"], t["metric"]) for t in data["tests"] if t["verdict"] == "drifted"}
    done = drift(base, new, "--format", "junit", "--output", "out/drift.xml", "--metrics", "acc,ece")
    assert done.exit_code == 1
    suites = ET.parse("out/drift.xml").getroot()
    assert [suite.attrib["name"] for suite in suites] == [*TASKS, "all"]
    failures = {(s.attrib["name"], c.attrib["name"]) for s in suites for c in s if c.find("failure") is not None}
    assert failures == failing
    assert sum(int(suite.attrib["failures"]) for suite in suites) == len(failing)
    lines = drift(base, new, "--format", "github", "--metrics", "acc,ece").stdout.splitlines()
    assert sum(line.startswith("::error title=drift%3A ") for line in lines) == len(failing)
    assert all(line.startswith("::") for line in lines)


def test_text_from_data_is_no_workflow_command_nor_markup(tmp_path: Path) -> None:
    model = "evil\n::error::<script>&"
    runs = [write_run(tmp_path / str(s), model=model, seed=s, sharpness=1.5 + 2 * s, n_bins=10 + s) for s in range(2)]
    lines = drift(*runs, "--format", "github").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("::error title=not comparable::")
    done = drift(*runs, "--n_bins", 10, "--format", "junit", "--metrics", "acc")
    assert ET.fromstring(done.stdout) is not None
    history, page = tmp_path / "h.jsonl", tmp_path / "h.html"
    done = drift(*runs, "--n_bins", 10, "--metrics", "ece", "--history", history, "--picture", page)
    assert done.exit_code == 1, done.output
    assert len(history.read_text(encoding="utf-8").splitlines()) == 2
    assert "<script>" not in page.read_text(encoding="utf-8")


def test_an_unchanged_model_is_green_and_stands_in_the_history(base: Path) -> None:
    again = write_run(Path("again"), tasks=TASKS, time="2026-02-28T10-00-00.1")
    for form in ("text", "github"):
        done = drift(base, again, "--metrics", "acc,ece", "--history", "runs.jsonl", "--format", form)
        assert done.exit_code == 0, done.output
        assert "nothing changed, bit for bit: the samples of BASE and NEW are equal" in done.stdout
    lines = [json.loads(line) for line in Path("runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["date"], line["verdict"]) for line in lines] == [
        ("2026-01-31T10:00:00", ""),
        ("2026-02-28T10:00:00", "ok"),
    ]


@pytest.mark.slow
def test_the_history_grows_by_a_line_a_run(base: Path) -> None:
    may = write_run(Path("may"), tasks=TASKS, seed=1, time="2026-05-31T10-00-00.1")
    june = write_run(Path("june"), tasks=TASKS, seed=2, sharpness=3.5, time="2026-06-30T10-00-00.1")
    options = ("--metrics", "ece,auroc", "--history", "runs.jsonl")
    assert drift(base, may, *options).exit_code == 0
    assert drift(base, june, *options, "--picture", "runs.svg").exit_code == 1
    assert drift(base, june, *options, "--picture", "runs.html").exit_code == 1  # once more, no new line
    assert drift(base, june, *options, "--picture", "runs.png").exit_code == 1
    lines = [json.loads(line) for line in Path("runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["date"] for line in lines] == ["2026-01-31T10:00:00", "2026-05-31T10:00:00", "2026-06-30T10:00:00"]
    assert [line["verdict"] for line in lines] == ["", "ok", "drifted"]
    assert lines[1]["base"] == lines[2]["base"] == lines[0]["run"]
    assert "all ece" in lines[2]["drifted"]
    assert set(lines[0]["values"]) == {*TASKS, "all"}
    assert set(lines[0]["values"]["all"]) == {"ece", "auroc"}
    label = ET.parse("runs.svg").getroot().attrib["aria-label"]
    assert label.startswith("3 runs over time: All tasks: ece from")
    assert "3 runs, from 2026-01-31 to 2026-06-30" in Path("runs.html").read_text(encoding="utf-8")
    assert Path("runs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "base"], "error: base and base are the same files"),
        (["base", "nowhere"], "error: nowhere does not exist"),
        (["base", "new", "--format", "yaml"], "error: no format 'yaml'; there are text, json, junit, github"),
        (["base", "new", "--metrics", "eec"], "error: no metric 'eec'; there are acc, brier_score"),
        (["base", "new", "--tolerance", "ece=much"], "error: --tolerance ece=much: it is a number of at least 0"),
        (["base", "new", "--tolerance", "-1"], "error: --tolerance -1: it is a number of at least 0"),
        (["base", "new", "--picture", "x.svg"], "error: --picture shows a history: give --history FILE too"),
        (["base", "new", "--history", "bad.jsonl"], "error: bad.jsonl, line 1: not a line of a history"),
        (["base", "cut"], "line 3: not JSON, cut short"),
        (["base", "old"], "record version 0 is not 1"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments: list[str], message: str, base: Path) -> None:
    write_run(Path("new"), tasks=TASKS, seed=1)
    Path("bad.jsonl").write_text("{}\n", encoding="utf-8")
    cut = next(write_run(Path("cut"), tasks={"anatomy_calibration": 3}, seed=1).glob("*.jsonl"))
    cut.write_text(cut.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    old = next(write_run(Path("old"), tasks={"anatomy_calibration": 3}, seed=1).glob("*.jsonl"))
    old.write_text(old.read_text(encoding="utf-8").replace('"version": 1', '"version": 0', 1), encoding="utf-8")
    before = sorted(Path().rglob("*"))
    done = drift(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_too_few_docs_may_fail_the_gate(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1)
    assert drift(base, new, "--metrics", "ece", "--tolerance", "0.001").exit_code == 0
    done = drift(base, new, "--metrics", "ece", "--tolerance", "0.001", "--fail_on_unclear")
    assert done.exit_code == 1, done.output
    last = done.stdout.splitlines()[-1]
    assert last.startswith("unclear, which fails (--fail_on_unclear): ")
    assert re.search(r"were changes as estimated, about [\d,]+ docs would settle it$", last)
    assert drift(base, new, "--metrics", "ece", "--tolerance", "0.9", "--fail_on_unclear").exit_code == 0


def test_markdown_for_the_job_page(base: Path) -> None:
    new = write_run(Path("new"), tasks=TASKS, seed=1, sharpness=3.5)
    lines = drift(base, new, "--metrics", "acc,ece", "--format", "md").stdout.splitlines()
    assert lines[0] == "### Calibration drift"
    assert lines[2].startswith("❌ drifted: ")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 6
    assert len({line.count("|") - line.count("\\|") for line in table}) == 1
