"""The command, on samples files as the harness writes them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import cells
from logged_runs import make_generated_lines, make_lines, write_run
from typer.testing import CliRunner

from lm_eval_calibration.cli import app
from lm_eval_calibration.metrics import comparison
from lm_eval_calibration.recalibration import Temperature, evaluate_threshold
from lm_eval_calibration.recalibration.map_file import SavedMap
from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.reports.recalibrate.tables import print_operating_point

TEMPERATURES = {"law": 2.5, "medicine": 0.7}


@pytest.fixture
def write_samples(docs_of, tmp_path, monkeypatch):
    """Function that writes a run's samples of two tasks and returns its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "find_spec", lambda name: None)  # smece takes a second for each table

    def write(run: str, seed: int, n: int = 200, tasks: tuple[str, ...] = ("law", "medicine")) -> Path:
        folder = tmp_path / run / "model"
        folder.mkdir(parents=True)
        for task in tasks:
            some = docs_of(n, temperature=TEMPERATURES[task], group=task, seed=seed, ragged=True)
            lines = [
                {
                    "doc": {"subject": f"s{i % 2}", "meta": {"age": i % 3}},
                    "calibration": record(task, i, some).to_dict(),
                }
                for i in range(n)
            ]
            text = "\n".join(map(json.dumps, lines))
            (folder / f"samples_{task}_2026-01-01.jsonl").write_text(text, encoding="utf-8")
        return Path(run)

    return write


def record(task: str, i: int, docs: Any) -> ChoicesRecord:
    log_likelihoods = tuple((docs.log_likelihoods[i] - docs.log_likelihoods[i].max()).tolist())
    doc_hash, gold = docs.doc_hashes[i], int(docs.labels[i])
    return ChoicesRecord(
        task=task, doc_id=i, doc_hash=doc_hash, prompt_hash="p", log_likelihoods=log_likelihoods, gold=gold
    )


def recalibrate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["recalibrate", *map(str, arguments)])


def rows(output: str) -> dict[str, list[str]]:
    """The lines of the tables by their first cells."""
    return {cells(line)[0]: cells(line) for line in output.splitlines() if "\t" in line}


def test_fit_save_and_apply(write_samples) -> None:
    done = recalibrate(write_samples("a", 0), "--by", "task", "--output", "maps/map.json", "--error_rate", "0.3")
    assert done.exit_code == 0, done.output
    table = rows(done.stdout)
    assert table["acc"][1] == table["acc"][2]
    assert table["nll"][5] == "better"
    assert "400 docs in 5 folds, each mapped by a map fitted on the other folds" in done.stdout
    lines = [cells(line) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines if line[3:4] == ["nll"]] == [["all", "400"], ["law", "200"], ["medicine", "200"]]
    (law,) = [line for line in lines if line[:3] == ["law", "200", "overconfidence"]]
    assert float(law[4]) > 0.1  # more than medicine's
    assert float(law[5].removeprefix("< ")) < 0.05
    assert "adjusted over 2 groups" in done.stdout
    assert "0.3" in table
    assert "note: --error_rate promises nothing here; `lm-eval-calibration decide RESULTS" in done.stderr

    saved = SavedMap.read(Path("maps/map.json"))
    assert (saved.by, saved.error_rate) == ("task", 0.3)
    assert 0 < saved.threshold < 1
    for task, expected in TEMPERATURES.items():
        assert saved.map.maps[task].temperature == pytest.approx(expected, rel=0.25)

    done = recalibrate("--apply", "maps/map.json", write_samples("b", 1))
    assert done.exit_code == 0, done.output
    assert "fitted on 400 docs, tested on 400 others" in done.stdout
    table = rows(done.stdout)
    assert table["acc"][1] == table["acc"][2]
    assert table["nll"][5] == "better"
    assert float(table["0.3"][1]) == pytest.approx(saved.threshold, abs=1e-4)


def test_a_map_is_not_judged_on_the_docs_it_was_fitted_on(write_samples) -> None:
    run = write_samples("a", 0, tasks=("law",))
    assert recalibrate(run, "--output", "map.json").exit_code == 0
    done = recalibrate("--apply", "map.json", run)
    assert done.exit_code == 2
    assert (
        "error: map.json: the map was fitted on 200 of these 200 docs; it can be tested on other docs only"
        in done.stderr
    )
    other = write_samples("b", 1, tasks=("law",))
    first = next(run.rglob("*.jsonl")).read_text(encoding="utf-8").splitlines()[0]
    beside = next(other.rglob("*.jsonl")).with_name("samples_one_2026-01-01.jsonl")
    beside.write_text(first.replace('"task": "law"', '"task": "law_again"'), encoding="utf-8")
    done = recalibrate("--apply", "map.json", other)
    assert "fitted on 1 of these 201 docs" in done.stderr


def test_a_calibration_split_is_fitted_on_and_the_others_are_judged(write_samples) -> None:
    run = write_samples("a", 0)
    done = recalibrate(run, "--fit_on", "task=law", "--error_rate", "0.3", "--output", "map.json")
    assert done.exit_code == 0, done.output
    assert "temperature of task=law, fitted on 200 docs, tested on 200 others" in done.stdout
    assert rows(done.stdout)["nll"][5] == "worse"  # medicine is underconfident, law overconfident
    saved = SavedMap.read(Path("map.json"))
    assert saved.map.maps[""].temperature == pytest.approx(2.5, rel=0.25)
    again = recalibrate("--apply", "map.json", next(run.rglob("*medicine*")))
    lines = again.stdout.splitlines()
    assert lines[0].startswith("# With the map, on docs that it was not fitted on: worse. ")
    assert [lines[0], *lines[2:]] == [line for i, line in enumerate(done.stdout.splitlines()[:-1]) if i != 1]


def test_a_temperature_of_another_domain_is_shown_to_do_harm(write_samples) -> None:
    law, medicine = write_samples("a", 0, 600, ("law",)), write_samples("b", 0, 600, ("medicine",))
    assert recalibrate(law, "--output", "map.json").exit_code == 0
    table = rows(recalibrate("--apply", "map.json", medicine).stdout)
    assert table["ece"][5] == table["nll"][5] == "worse"
    assert float(table["ece"][2]) > float(table["ece"][1])


@pytest.mark.parametrize(("by", "groups"), [("doc.subject", {"s0", "s1"}), ("doc.meta.age", {"0", "1", "2"})])
def test_groups_are_fields_of_the_docs(by, groups, write_samples) -> None:
    done = recalibrate(write_samples("a", 0, tasks=("law",)), "--by", by, "--output", "map.json")
    assert done.exit_code == 0, done.output
    assert set(SavedMap.read(Path("map.json")).map.maps) == groups
    assert groups <= set(rows(done.stdout))


@pytest.mark.parametrize("method", ["platt", "isotonic", "histogram"])
def test_other_methods_map_the_confidence_of_the_answer(method, write_samples) -> None:
    done = recalibrate(write_samples("a", 0, 600, ("law",)), "--method", method, "--output", "map.json")
    assert done.exit_code == 0, done.output
    assert rows(done.stdout)["brier_top_label"][5] == "better"
    assert "not shown, since only the answer's confidence is mapped: brier_score, ace, nll" in done.stdout
    assert recalibrate("--apply", "map.json", write_samples("b", 1, tasks=("law",))).exit_code == 0


def test_beta_without_betacal_is_one_line(write_samples, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "betacal", None)
    done = recalibrate(write_samples("a", 0, tasks=("law",)), "--method", "beta")
    assert done.exit_code == 2
    assert done.stderr == "error: beta calibration needs the package betacal: pip install betacal\n"


def test_few_docs_are_said_to_be_few(write_samples) -> None:
    done = recalibrate(write_samples("a", 0, n=12, tasks=("law",)))
    assert done.exit_code == 0, done.output
    assert done.stderr.count("note: left as it is: fewer than 20 docs to fit on") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere does not exist"),
        (["."], "error: . holds no samples_*.jsonl: run the harness with --log_samples"),
        (
            ["run", "--method", "magic"],
            "error: no method 'magic'; there are temperature, platt, isotonic, beta, histogram",
        ),
        (
            ["run", "--by", "subject"],
            "error: docs can't be grouped by subject: name task, or a field of the docs such as doc.subject",
        ),
        (["run", "--by", "doc.topic"], "has no 'topic', it has subject, meta"),
        (["run", "--fit_on", "task"], "error: --fit_on task: it is FIELD=VALUE, such as task=NAME or doc.split="),
        (["run", "--fit_on", "task=law"], "error: --fit_on task=law is all of the docs; task is law"),
        (
            ["run", "--fit_on", "doc.subject=x"],
            "error: --fit_on doc.subject=x is none of the docs; doc.subject is s0, s1",
        ),
        (
            ["run", "again"],
            "run, again holds 2 runs of one model: ",
        ),
        (["--apply", "none.json", "run"], "error: none.json: "),
        (["--apply", "bad.json", "run"], "error: bad.json: version 7 of the map file is not 1"),
        (["--apply", "text.json", "run"], "error: text.json: "),
        (["--apply", "bad.json", "run", "--by", "task"], "are for fitting, not for --apply"),
    ],
)
def test_errors_name_the_place_and_what_to_do(arguments, message, write_samples, tmp_path) -> None:
    if "run" in arguments:
        write_samples("run", 0, n=30, tasks=("law",))
    if "again" in arguments:
        write_samples("again", 0, n=30, tasks=("law",))
    (tmp_path / "bad.json").write_text('{"version": 7}', encoding="utf-8")
    (tmp_path / "text.json").write_text("hello", encoding="utf-8")
    done = recalibrate(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())


def test_a_map_by_task_has_no_word_on_other_tasks(write_samples) -> None:
    assert recalibrate(write_samples("a", 0, tasks=("law",)), "--by", "task", "--output", "map.json").exit_code == 0
    done = recalibrate("--apply", "map.json", write_samples("b", 0, tasks=("medicine",)))
    assert done.exit_code == 2
    assert "error: map.json: the map has no group 'medicine'; it has 'law'" in done.stderr


def test_broken_gold_labels_are_left_out_and_counted(write_samples) -> None:
    run = write_samples("a", 0, tasks=("law",))
    path = next(run.rglob("*.jsonl"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[3]["calibration"]["gold"] = None
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = recalibrate(run)
    assert "note: 1 doc has a gold label outside its choices and is left out" in done.stderr
    assert "temperature: 199 docs" in done.stdout


def test_a_doc_without_probabilities_is_named(write_samples) -> None:
    run = write_samples("a", 0, n=30, tasks=("law",))
    path = next(run.rglob("*.jsonl"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[3]["calibration"]["log_likelihoods"] = [None] * len(lines[3]["calibration"]["log_likelihoods"])
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = recalibrate(run)
    assert done.exit_code == 0
    assert "note: law: 1 doc has no finite log-likelihood and no part in calibration: doc 3" in done.stderr
    assert "29 docs in" in done.stdout


@pytest.mark.slow
def test_the_command_needs_neither_torch_nor_the_harness(write_samples) -> None:
    run = write_samples("a", 0, n=60, tasks=("law",))
    code = (
        "import sys; from lm_eval_calibration.cli import app;"
        f"app(['recalibrate', {str(run)!r}], standalone_mode=False);"
        "sys.exit(bool({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_map_file_is_small_and_holds_no_doc(write_samples) -> None:
    run = write_samples("a", 0, tasks=("law",))
    assert recalibrate(run, "--output", "map.json").exit_code == 0
    data = json.loads(Path("map.json").read_text(encoding="utf-8"))
    assert set(data) == {"version", "definitions", "map", "by", "error_rate", "threshold"}
    assert len(data["map"]["fitted_on"]) == 200
    assert "law0-3" not in Path("map.json").read_text(encoding="utf-8")
    fitted = SavedMap.read(Path("map.json"))
    assert isinstance(fitted.map.maps[""], Temperature)
    fitted.write(Path("again.json"))
    assert SavedMap.read(Path("again.json")) == fitted


def test_generated_answers_have_their_confidence_mapped(tmp_path) -> None:
    folder = write_run(tmp_path / "run", {"qa_calibration": make_generated_lines("qa_calibration", empty=2)})
    other = make_generated_lines("qa_calibration", n=80, seed=1)
    saved = tmp_path / "map.json"
    result = recalibrate(folder, "--method", "platt", "--output", saved)
    assert result.exit_code == 0, result.output
    assert "2 docs have an empty answer and are left out" in result.stderr
    assert rows(result.stdout)["ece"][-1] == "better"
    assert "nll" not in rows(result.stdout)
    applied = recalibrate("--apply", saved, write_run(tmp_path / "other", {"qa_calibration": other}))
    assert applied.exit_code == 0, applied.output
    assert "tested on 80 others" in applied.stdout


def test_a_temperature_of_generated_answers_is_refused(tmp_path) -> None:
    folder = write_run(tmp_path, {"qa_calibration": make_generated_lines("qa_calibration")})
    result = recalibrate(folder)
    assert result.exit_code == 2
    assert "generated answers have no choices" in result.stderr
    assert "platt, isotonic, histogram and beta" in result.stderr


def test_choices_and_generated_answers_are_not_mixed(tmp_path) -> None:
    tasks = {"mc_calibration": make_lines("mc_calibration"), "qa_calibration": make_generated_lines("qa_calibration")}
    result = recalibrate(write_run(tmp_path, tasks), "--method", "platt")
    assert result.exit_code == 2
    assert "docs with choices and answers without: take them one after the other (--task)" in result.stderr


@pytest.mark.parametrize(
    ("wanted", "wrong", "threshold", "said"),
    [
        (
            0.1,
            4,
            0.8,
            "after the map, 0.400 of 10 answers are wrong: more than the error rate of 0.1 that was wanted, m",
        ),
        (
            0.3,
            4,
            0.8,
            "0.400 of 10 answers are wrong: more than the error rate of 0.3 that was wanted, which may be",
        ),
        (
            0.5,
            4,
            0.8,
            "0.400 of 10 answers are wrong, no more than the error rate of 0.5 that was wanted; on other",
        ),
        (
            0.1,
            4,
            np.inf,
            "nothing is answered: no answer has a confidence, after the map, that keeps the error rate",
        ),
    ],
)
def test_what_was_wanted_is_set_against_what_was_measured(
    wanted: float, wrong: int, threshold: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    correct = np.arange(10) >= wrong
    print_operating_point(evaluate_threshold(np.full(10, 0.9), correct.astype(int), threshold, wanted=wanted))
    out = capsys.readouterr().out
    assert said in out
    assert "inf" not in out
    assert "nan" not in out
