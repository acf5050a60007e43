"""The command compare, on runs as the harness writes them."""

import csv
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import cells, run_command
from logged_runs import make_generated_lines, make_lines
from logged_runs import write_run as write_logged_run
from made_runs import write_run

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.plots.trade_off import pareto_front
from lm_eval_calibration.reports.compare.formats import FORMATS, SUFFIXES
from lm_eval_calibration.reports.compare.references import bibtex, cited
from lm_eval_calibration.reports.compare.table import Table, is_as_good, make_table
from lm_eval_calibration.reports.numbers import p_equals
from lm_eval_calibration.results import load_run

NAMES = "acc,ece,overconfidence"
EVIL = '<script>alert(1)</script> & $x_1$ 100% {a|b} #~^\\ "q" =1+1'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    tasks = {"anatomy_calibration": 300, "virology_calibration": 200}
    sharpness = {"org/good": 1.0, "org/same": 1.05, "org/sharp": 4.0}
    return [
        write_run(folder / f"run{i}", model=model, tasks=tasks, seed=i, sharpness=s)
        for i, (model, s) in enumerate(sharpness.items())
    ]


def compare(*arguments: object) -> Any:
    return run_command("compare", *arguments)


@pytest.fixture(scope="module")
def data(runs: list[Path]) -> dict[str, Any]:
    done = compare(*runs, "--metrics", NAMES, "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_values_are_those_of_each_run(runs: list[Path], data: dict[str, Any]) -> None:
    assert [task["task"] for task in data["tasks"]] == ["all", "anatomy_calibration", "virology_calibration"]
    for path, label in zip(runs, ("good", "same", "sharp"), strict=True):
        run = load_run(path)
        assert data["tasks"][0]["runs"][label]["n_docs"] == 500
        cell = data["tasks"][0]["runs"][label]["ece"]
        conf, correct = run.arrays("top_label")
        assert cell["value"] == pytest.approx(metrics.ece(conf, correct), abs=1e-12)
        assert [cell["low"], cell["high"]] == pytest.approx(metrics.ece_interval(conf, correct), abs=1e-12)


def test_the_best_and_its_ties_are_marked(data: dict[str, Any]) -> None:
    marks = {label: row["ece"]["mark"] for label, row in data["tasks"][0]["runs"].items()}
    assert sorted((marks["good"], marks["same"])) == ["best", "tied"]
    assert marks["sharp"] == ""
    of_acc = {(row["acc"]["value"], row["acc"]["mark"]) for row in data["tasks"][0]["runs"].values()}
    assert [mark for _, mark in of_acc] == ["best"]  # equal values are marked alike
    assert data["tasks"][0]["runs"]["sharp"]["ece"]["p_best"] < 0.05


def test_holm_is_over_all_pairs_metrics_and_tasks(data: dict[str, Any]) -> None:
    pairs = data["pairs"]
    assert len(pairs) == data["n_tests"] == 3 * 3 * 3
    assert {(pair["a"], pair["b"]) for pair in pairs} == set(itertools.combinations(("good", "same", "sharp"), 2))
    assert all(pair["paired"] for pair in pairs)
    adjusted = metrics.holm([pair["p_value"] for pair in pairs])
    assert [pair["p_adjusted"] for pair in pairs] == pytest.approx(adjusted.tolist(), abs=1e-15)
    assert "over 27 tests" in data["legend"]


@pytest.fixture(scope="module")
def table(runs: list[Path]) -> Table:
    return make_table({path.name: load_run(path) for path in runs}, ["acc", "ece"], ["all"])


@pytest.mark.slow
def test_every_format(table: Table) -> None:
    first_cells = [line.split("\t")[0].strip() for line in str(FORMATS["table"](table)).splitlines()]
    assert first_cells[:5] == ["# all", "model", "run0", "run1", "run2"]
    lines = list(csv.DictReader(io.StringIO(str(FORMATS["csv"](table)))))
    assert [(line["model"], line["metric"]) for line in lines[:3]] == [
        ("run0", "acc"),
        ("run0", "ece"),
        ("run1", "acc"),
    ]
    assert float(lines[1]["value"]) == table.scopes[0].rows["run0"]["ece"].value
    for form in ("md", "latex", "html"):
        assert f"{table.scopes[0].rows['run0']['ece'].value:.3f}" in FORMATS[form](table)
        assert "naeini2015obtaining" in FORMATS[form](table)
    label = ET.fromstring(FORMATS["svg"](table).decode().split("\n", 1)[1]).attrib["aria-label"]
    assert "On the Pareto front: " in label
    assert FORMATS["png"](table).startswith(b"\x89PNG")
    assert set(SUFFIXES.values()) <= set(FORMATS)


def test_the_output_s_suffix_names_the_format(runs: list[Path], tmp_path: Path) -> None:
    done = compare(*runs[:2], "--metrics", "acc", "--task", "all", "--output", tmp_path / "new" / "table.csv")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "new" / "table.csv").read_text(encoding="utf-8").startswith("task,model,metric,")


def test_names_from_data_are_text_everywhere(tmp_path: Path) -> None:
    models = [EVIL, "=HYPERLINK(1)"]
    arguments = [write_run(tmp_path / str(i), model=model, seed=i, sharpness=1 + i) for i, model in enumerate(models)]
    loaded = list(map(load_run, arguments))
    table = make_table(dict(zip(models, loaded, strict=True)), ["acc", "ece"])
    said = {form: str(FORMATS[form](table)) for form in ("html", "md", "csv", "latex")}
    said["svg"] = FORMATS["svg"](table).decode()
    assert "<script>" not in said["html"] + said["md"] + said["svg"] + said["latex"]
    assert "script" in "".join(ET.fromstring(said["svg"].split("\n", 1)[1]).itertext())
    models_in_csv = {line["model"] for line in csv.DictReader(io.StringIO(said["csv"]))}
    assert "'=HYPERLINK(1)" in models_in_csv
    assert not any(name.startswith("=") for name in models_in_csv)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)")
def test_the_latex_compiles_with_its_references(tmp_path: Path) -> None:
    models = [EVIL, "org/naïve_model-中"]
    arguments = [write_run(tmp_path / str(i), model=model, seed=i, sharpness=1 + i) for i, model in enumerate(models)]
    for name in ("table.tex", "table.bib"):
        assert compare(*arguments, "--output", tmp_path / name).exit_code == 0
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table.tex}"
        r"\bibliographystyle{plain}\bibliography{table}\end{document}",
        encoding="utf-8",
    )
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for command in (latex, ["bibtex", "paper"], latex, latex):
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, encoding="latin-1")
        assert done.returncode == 0, done.stdout
    assert "undefined" not in done.stdout
    assert "Overfull" not in done.stdout


def test_full_ece_of_different_tokenizers_is_shown_as_not_comparable(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / str(i), seed=i, model=f"m{i}", tokenizer=f"t{i}") for i in range(2)]
    done = compare(*paths, "--format", "json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    for row in data["tasks"][0]["runs"].values():
        assert row["full_ece"]["value"] is not None
        assert row["full_ece"]["mark"] == ""
        assert "full_ece is compared within one tokenizer only" in row["full_ece"]["reason"]
        assert row["ece"]["mark"]
    assert "(not comparable)" in compare(*paths).stdout
    assert r"\times" in compare(*paths, "--format", "latex").stdout


def test_runs_measured_otherwise_are_flagged(tmp_path: Path) -> None:
    certificates = [{"vocabulary": "5f"}, {"vocabulary": "5f", "distributions": "top_k", "dtype": "bfloat16"}]
    certificates[1]["suspect"] = "shifted by one position"
    paths = [
        write_run(tmp_path / str(i), seed=i, model=f"m{i}", tokenizer=f"folder/{i}", certificate=certificate)
        for i, certificate in enumerate(certificates)
    ]
    done = compare(*paths)
    assert "note: m1: shifted by one position" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "were not measured in the same way" in line)
    assert (
        "probabilities of the vocabulary: not recorded against the most probable only; dtype: not recorded against"
        in line
    )
    assert "tokenizer" not in line
    assert "not comparable" not in done.stdout  # one vocabulary in two folders


def test_other_docs_are_compared_unpaired_and_that_is_said(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / str(i), model=f"m{i}", docs=i) for i in range(2)]
    done = compare(*paths, "--metrics", "ece")
    assert "m0 and m1 have different docs and are compared unpaired" in done.stdout


def test_names_can_be_given_and_settings_tell_runs_of_a_model_apart(tmp_path: Path) -> None:
    zero, five = (write_run(tmp_path / str(shots), shots=shots, seed=shots) for shots in (0, 5))
    done = compare(zero, five, "--metrics", "acc")
    assert "model (0-shot)" in done.stdout
    assert "were given different prompts" in done.stdout
    assert "\nfew" in compare(zero, f"few={five}", "--metrics", "acc").stdout


def test_runs_with_equal_samples_are_said_to_be_unchanged(tmp_path: Path) -> None:
    january, march = (write_run(tmp_path / day, time=f"{day}T00-00-00.1") for day in ("2026-01-01", "2026-03-01"))
    done = compare(january, march, "--metrics", "acc")
    assert done.exit_code == 0
    assert "nothing changed, bit for bit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "error: compare needs two runs at least"),
        (["a", "a"], "error: a and a are the same files"),
        (["a", "nowhere"], "error: nowhere does not exist"),
        (["a", "other"], "error: the runs have no task in common"),
        (["a", "b", "--task", "xyz"], "error: --task xyz: there are the tasks and groups in common "),
        (["a", "b", "--metrics", "eec"], "error: no metric 'eec'"),
        (["a", "b", "--format", "xls"], "error: no format 'xls'"),
        (["a", "b", "--output", "x.xls"], "error: x.xls: no format is known by its suffix"),
        (["a", "b", "--format", "png"], "error: a PNG can't be printed: give --output FILE"),
        (["a", "b", "--metrics", "acc", "--output", "x.svg"], "ece is not among the metrics"),
        (["a", "bins"], "different numbers of bins (10 in a, 15 in bins)"),
        (["x=a", "x=b"], "error: two runs have the same name (x, x)"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        write_run(Path(name), seed=seed, tasks={"anatomy_calibration": 30})
    write_run(Path("copy"), tasks={"anatomy_calibration": 30}, time="2027-01-01T00-00-00.1")
    write_run(Path("other"), tasks={"other_calibration": 30})
    write_run(Path("bins"), tasks={"anatomy_calibration": 30}, n_bins=15, seed=3)
    before = sorted(Path().rglob("*"))
    done = compare(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_the_pareto_front_is_that_of_its_definition() -> None:
    points = {"a": (0.5, 0.1), "b": (0.6, 0.2), "c": (0.55, 0.3), "d": (0.6, 0.2), "e": (0.4, 0.1)}
    assert pareto_front(points) == ["a", "b", "d"]
    assert pareto_front({}) == []


def test_references_are_whole_and_cited_once() -> None:
    keys = cited(CATALOG)
    assert len(keys) == len(set(keys))
    entries = re.findall(r"@(\w+)\{([\w-]+),", bibtex(CATALOG))
    assert [key for _, key in entries] == keys
    assert bibtex(["ece"]).count("@") == 3  # its paper, Holm's, the software
    for entry in bibtex(CATALOG).split("\n\n"):
        assert entry.count("{") == entry.count("}")


def test_generated_answers_are_compared_by_what_they_have(tmp_path: Path) -> None:
    folders = [
        write_logged_run(tmp_path / model, {"qa_calibration": make_generated_lines("qa_calibration", seed=seed)})
        for seed, model in enumerate(("a", "b"))
    ]
    result = compare(*folders)
    assert result.exit_code == 0, result.output
    assert ["model", "docs", "acc ↑", "brier_top_label ↓", "ece ↓", "auroc ↑"] in [
        cells(line) for line in result.stdout.splitlines()
    ]
    named = compare(*folders, "--metrics", "ace")
    assert named.stdout.count("(not comparable)") == 2
    assert "undefined" not in named.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("n_tasks", "shows_tasks"), [(3, True), (13, False)])
def test_groups_are_shown_and_of_many_tasks_they_alone(n_tasks: int, shows_tasks: bool, tmp_path: Path) -> None:
    tasks = {f"t{i:02}_calibration": 20 for i in range(n_tasks)}
    groups = {"all_of_them": list(tasks), "first": list(tasks)[:2], "last": list(tasks)[2:]}
    runs = {
        label: load_run(write_run(tmp_path / label, model=label, tasks=tasks, groups=groups, seed=seed))
        for seed, label in enumerate("ab")
    }
    table = make_table(runs, ["acc", "ece"])
    assert [scope.task for scope in table.scopes] == ["all", "first", "last", *(tasks if shows_tasks else ())]
    first = table.scopes[1]
    assert first.n_docs == {"a": 40, "b": 40}
    for label, run in runs.items():
        assert first.rows[label]["ece"].value == pytest.approx(
            metrics.ece(*run.arrays("top_label", "first")), abs=1e-12
        )
    pooled = next(pair for pair in table.pairs if pair.task == "first" and pair.metric == "acc")
    assert pooled.n_docs == 40
    assert pooled.difference == pytest.approx(first.rows["b"]["acc"].value - first.rows["a"]["acc"].value, abs=1e-12)
    assert [scope.task for scope in make_table(runs, ["acc"], ["last", "t00_calibration"]).scopes] == [
        "last",
        "t00_calibration",
    ]


def test_only_what_task_names_is_measured_and_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {f"t{i}_calibration": 30 for i in range(4)}
    groups = {"first": list(tasks)[:2]}
    runs = {
        label: load_run(write_run(tmp_path / label, model=label, tasks=tasks, groups=groups, seed=seed))
        for seed, label in enumerate("ab")
    }
    whole = make_table(runs, ["acc", "ece"])
    sizes = []
    compare_docs = metrics.compare

    def counting(a: Any, b: Any, **options: Any) -> Any:
        sizes.append(len(a.correct))
        return compare_docs(a, b, **options)

    monkeypatch.setattr(metrics, "compare", counting)
    for name, n_docs in {"t1_calibration": 30, "first": 60, "all": 120}.items():
        sizes.clear()
        table = make_table(runs, ["acc", "ece"], [name])
        assert sizes == [n_docs, n_docs]  # one test a metric
        assert table.n_tests == 2
        of_whole = [pair for pair in whole.pairs if pair.task == name]
        assert [pair.p_value for pair in table.pairs] == [pair.p_value for pair in of_whole]
        adjusted = metrics.holm([pair.p_value for pair in of_whole]).tolist()
        assert [pair.p_adjusted for pair in table.pairs] == adjusted


def test_a_group_is_shown_over_its_sound_tasks(tmp_path: Path) -> None:
    tasks = {f"t{i}_calibration": make_lines(f"t{i}_calibration", 30) for i in range(3)}
    unsound = [
        line | {"calibration": line["calibration"] | {"gold": None, "correct": None}}
        for line in tasks["t1_calibration"]
    ]
    groups = {"first": ["t0_calibration", "t1_calibration"], "gone": ["t1_calibration"]}
    folders = [
        write_logged_run(tmp_path / "a", tasks, groups=groups),
        write_logged_run(tmp_path / "b", tasks | {"t1_calibration": unsound}, groups=groups),
    ]
    runs = dict(zip("ab", map(load_run, folders), strict=True))
    table = make_table(runs, ["acc"])
    assert [scope.task for scope in table.scopes] == ["all", "first", "t0_calibration", "t2_calibration"]
    assert table.scopes[1].n_docs == {"a": 30, "b": 30}
    assert table.scopes[1].rows["b"]["acc"].value == runs["b"].metrics("t0_calibration")["acc"].value
    assert any(note.endswith("and left out: t1_calibration") for note in table.notes)


def test_p_stands_in_every_table_and_what_reads_alike_is_marked_alike(table: Table) -> None:
    cell = table.scopes[0].rows["run0"]["ece"]
    p = max(p for row in table.scopes[0].rows.values() if not math.isnan(p := row["ece"].p_best))
    for form in ("table", "md", "latex", "html"):
        text = str(FORMATS[form](table))
        assert p_equals(p) in text
        assert "each of its value alone" in text
        assert "one may end at its value or below" in text
    rows = {
        "a": {"ece": cell._replace(value=0.12341, mark="best", p_best=math.nan)},
        "b": {"ece": cell._replace(value=0.12339, mark="tied", p_best=0.9)},
    }
    scope = replace(table.scopes[0], rows=rows, n_docs={"a": 9, "b": 9})
    close = replace(table, scopes=(scope,), metrics=("ece",))
    assert str(FORMATS["latex"](close)).count(r"\textbf{0.123}") == 2
    assert r"\underline" not in str(FORMATS["latex"](close))
    assert is_as_good("ece", 0.12341, 0.12339)
    assert is_as_good("overconfidence", -0.1, 0.1)
    assert not is_as_good("ece", 0.1235, 0.1233)
