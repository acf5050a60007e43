"""What the READMEs show is what happens: commands, flags, tables, Python, figures, links."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from tiny import run_tasks

from lm_eval_calibration import demo
from lm_eval_calibration.cli import app
from lm_eval_calibration.decisions import SavedDecision, Wanted, decide
from lm_eval_calibration.decisions.candidates import of_choices
from lm_eval_calibration.harness.task_configs import task_names
from lm_eval_calibration.metrics import CATALOG, CORE, CORPUS_CATALOG
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.tasks import CalibrationTaskManager, Options

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "lm_eval_calibration"
READMES = {
    path: path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "tests" / "README.md",
        *sorted(PACKAGE.glob("*/README.md")),
        *sorted((REPOSITORY / "task_configs").glob("*/README.md")),
    )
}
README = READMES[REPOSITORY / "README.md"]


def block(name: str) -> str:
    """The code block that follows the comment of this name, in whichever README."""
    found = [
        match.group(1)
        for text in READMES.values()
        for match in re.finditer(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    ]
    assert len(found) == 1, name
    return found[0]


def section(title: str) -> str:
    """What stands under a heading of the second level, in whichever README has it."""
    found = [text.split(f"\n## {title}\n")[1] for text in READMES.values() if f"\n## {title}\n" in text]
    assert len(found) == 1, title
    return found[0].split("\n## ")[0]


def shell_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(READMES.values()), re.DOTALL)
    lines = [line.strip() for text in blocks for line in text.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


def test_the_front_door_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_every_room_has_a_readme_and_every_link_leads_somewhere() -> None:
    rooms = {path.parent for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= {path.parent for path in READMES}
    configs = {path.parent for path in (REPOSITORY / "task_configs").glob("*/*.yaml")}
    assert configs <= {path.parent for path in READMES}
    broken = []
    for path, text in READMES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            file, _, anchor = target.partition("#")
            if target.startswith("http"):
                continue
            linked = (path.parent / file).resolve() if file else path
            exists = linked.exists() and (not anchor or anchor in anchors(READMES.get(linked, "")))
            broken += [] if exists else [f"{path.relative_to(REPOSITORY)}: {target}"]
    assert broken == []


def test_the_plots_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagram, first = run_python(block("python: plots"), tmp_path, monkeypatch)
    assert float(diagram.split()[0]) > 0.05
    assert "True" in diagram
    assert "coverage=" in first


def test_every_python_block_is_run_by_a_test_here() -> None:
    blocks = re.findall(r"(<!-- ([^>]*) -->\n)?```python\n", "\n".join(READMES.values()))
    named = [name for _, name in blocks]
    assert "" not in named
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in named if f'block("{name}")' not in tested] == []


def test_commands_exist_with_their_flags() -> None:
    import typer

    known = typer.main.get_command(app).commands
    commands = [c for line in shell_commands() for c in line.split(" && ") if c.startswith("lm-eval-calibration")]
    assert len(commands) >= 20
    for command in commands:
        name = command.split()[1]
        flags = {flag for option in known[name].params for flag in (*option.opts, *option.secondary_opts)}
        passed_on = known[name].context_settings.get("ignore_unknown_options")  # to the harness: see the next test
        used = set(re.findall(r"(?<![\w-])--[\w-]+", command))
        assert passed_on or used <= flags, command


def test_flags_are_the_harness_s_own() -> None:
    import typer
    from lm_eval._cli import HarnessCLI

    ours = {flag for option in typer.main.get_command(app).commands["run"].params for flag in option.opts}
    known = {*ours, *HarnessCLI()._subparsers.choices["run"]._option_string_actions}
    prose = re.sub(r"```sh\n.*?```", "", section("Models"), flags=re.DOTALL)
    runs = [c for c in shell_commands() if c.startswith(("lm-eval-calibration run ", "lm_eval run "))]
    used = set(re.findall(r"(?<![\w-])--\w+", "\n".join(runs) + prose))
    assert len(used) > 8
    assert used <= known


def test_set_up_is_the_two_documented_commands() -> None:
    assert "lm-eval-calibration demo" in shell_commands()
    assert "pip install -e '.[test]' && pytest" in shell_commands()


def test_tasks_are_those_we_ship() -> None:
    groups, tasks = task_names()
    named = set(re.findall(r"`(\w+_calibration)`", section("Tasks") + section("Use it")))
    assert set(groups) <= named
    assert named <= {*groups, *tasks}
    assert f"all {sum(t.startswith('mmlu_') for t in tasks)} MMLU subjects" in README


def test_metrics_are_those_we_have() -> None:
    core = re.findall(r"^\| `(\w+)` \|", section("Use it"), re.MULTILINE)
    assert set(core) == {"acc", *CORE}
    assert re.findall(r"^\| `(\w+)` \|", section("Core metrics"), re.MULTILINE) == core
    extended = section("Options").split("Extended metrics:")[1]
    assert set(re.findall(r"`([a-z0-9_]+)`", extended)) == set(CATALOG) - set(CORE)
    for line in (section("Use it") + section("Core metrics")).splitlines():
        if match := re.match(r"\| `(\w+)` \|.*\| (higher|lower) \|$", line):
            name, better = match.groups()
            assert name == "acc" or CATALOG[name].higher_is_better == (better == "higher")


def test_options_are_those_we_read() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", section("Options"), re.MULTILINE)
    defaults = {
        name: str(value) if isinstance(value, bool) else str(value or "none").strip()
        for name, value in Options().to_dict().items()
    }
    assert dict(rows) == defaults | {"permute": "0"}


def run_shell(code: str, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Run commands in a folder, with the programs of another one first."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e"],
        input=code,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def run_python(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "README", "exec"), {})
    return said.getvalue().splitlines()


def test_python_of_the_metrics_says_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("python: metrics")
    expected = [float(number) for number in re.findall(r"# ([\d.]+)$", code, re.MULTILINE)]
    assert [float(line) for line in run_python(code, tmp_path, monkeypatch)] == pytest.approx(expected, abs=1e-12)
    assert len(expected) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the best token temperature")  # of a model of random weights
def test_python_of_the_records_runs(gpt2_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.utils import handle_non_serializable
    from tiny import make_config, make_rows

    from lm_eval_calibration.tasks import CalibratedTask

    asked = {"calibration": {"temperatures": True}}
    results = run_tasks(gpt2_lm, [CalibratedTask(make_config(make_rows(), metadata=asked))])
    lines = [json.dumps(s, default=handle_non_serializable) for s in results["samples"]["letters_calibration"]]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    curves, fitted = run_python(block("python: temperatures"), tmp_path, monkeypatch)
    assert curves.startswith("[3.0, 2.4, ")
    assert fitted.startswith("{0: ")
    ece, full_ece, first = run_python(block("python: records"), tmp_path, monkeypatch)
    ece, full_ece = float(ece), float(full_ece)
    record = results["samples"]["letters_calibration"][0]["calibration"]
    assert first == f"{record['confidence']} {record['correct']}"
    assert 0 < ece < 1
    assert 0 < full_ece < 2


def test_python_of_parquet_files_is_a_query_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="needs duckdb")
    from commands import run_command
    from logged_runs import make_lines, write_run

    write_run(tmp_path / "lm_eval_results", {"law": make_lines("law", 30)})
    assert run_command("export", tmp_path / "lm_eval_results", "--format", "parquet").exit_code == 0
    printed = "\n".join(run_python(block("python: parquet"), tmp_path, monkeypatch))
    assert "law" in printed
    assert "30" in printed


def test_python_of_the_runs_says_what_the_metrics_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="diagrams need matplotlib (extra `report`)").use("Agg")
    import matplotlib.pyplot as plt
    from logged_runs import make_lines, write_run

    tasks = {name: make_lines(name, n=30) for name in ("medqa_4options_calibration", "pubmedqa_calibration")}
    write_run(tmp_path / "lm_eval_results", tasks, groups={"medical_calibration": list(tasks)})
    about, ece = run_python(block("python: runs"), tmp_path, monkeypatch)
    assert about.startswith("org/model 60 {'medical_calibration': ")
    assert 0 < float(ece.split()[0]) < 1
    plt.close("all")


@pytest.mark.real_data
def test_the_task_file_works_as_written(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    (tmp_path / "own.yaml").write_text(block("own task"), encoding="utf-8")
    manager = CalibrationTaskManager(include_path=str(tmp_path))
    (task,) = manager.load(["mmlu_virology_15_calibration"])["tasks"].values()
    assert task.options.n_bins == 15
    assert [entry["metric"] for entry in task.config.metric_list] == ["acc", "ece", "mce"]


def test_python_of_trust_says_that_nothing_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ece, interval, words = run_python(block("python: trust"), tmp_path, monkeypatch)
    assert float(ece) > 0.03
    assert interval.startswith("(0.0, ")
    assert words.startswith("ece 0.0")
    assert "doesn't tell this model from a calibrated one" in words


def test_python_of_clusters_says_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = block("python: clusters")
    assert run_python(python, tmp_path, monkeypatch) == re.findall(r"# (0\.\d+)", python)


@pytest.mark.slow
def test_the_picture_is_what_its_script_draws() -> None:
    script = Path(__file__).parent / "simulations" / "picture.py"
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    assert block("picture") == done.stdout


def test_python_of_recalibration_says_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("python: recalibrate")
    expected = re.findall(r"^# (.*)$", code, re.MULTILINE)
    assert [line.strip() for line in run_python(code, tmp_path, monkeypatch)] == expected


@pytest.mark.skipif(sys.platform == "win32", reason="the judge refuses Windows")
def test_python_of_the_judge_says_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("python: judge")
    assert run_python(code, tmp_path, monkeypatch) == re.findall(r"^# (.*)$", code, re.MULTILINE)


def test_metrics_of_a_corpus_are_those_we_have() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Corpora: every token"), re.MULTILINE) == list(CORPUS_CATALOG)


def test_python_of_decisions_says_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("python: decide")
    assert run_python(code, tmp_path, monkeypatch) == re.findall(r"^# (.*)$", code, re.MULTILINE)


def test_the_serving_snippet_does_what_the_decision_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (4000, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    docs = Docs.of(logits, labels, [f"doc {i}" for i in range(4000)])
    decision = decide(docs, Wanted(0.1))
    SavedDecision.of(decision, "m", ("t",)).write(tmp_path / "decision.json")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python: serving"), "README", "exec"), names)
    sets = of_choices(docs)["lac"].sets(np.full(4000, decision.sets["lac"].q[""]))
    confidence, threshold = docs.forecasts.confidence, decision.thresholds[""]
    assert threshold is not None
    for i in range(200):
        answer, left = names["act"](dict(zip("ABC", docs.log_likelihoods[i], strict=True)))
        assert (answer is not None) == (confidence[i] >= threshold)
        assert left == [option for option, is_left in zip("ABC", sets[i], strict=True) if is_left]
        assert answer in (None, "ABC"[docs.answers[i]])


@pytest.mark.slow
def test_a_csv_becomes_a_decision_as_written(tmp_path: Path, programs: Path) -> None:
    rows = [f"Question {i}?,yes|no|maybe,{('yes', 'no')[i % 2]},{('icu', 'er')[i % 3 == 0]}" for i in range(90)]
    (tmp_path / "data.csv").write_text("\n".join(["question,options,answer,ward", *rows]) + "\n", encoding="utf-8")
    done = run_shell(block("csv to decision"), tmp_path, programs)
    assert done.returncode == 0, done.stderr
    assert "It may answer alone in 0 of 2 groups (doc.ward)" in done.stdout
    assert "nothing promised: the decision has no threshold" in done.stdout
    assert json.loads((tmp_path / "decision.json").read_text())["thresholds"] == {"er": None, "icu": None}
    assert (tmp_path / "decision.svg").read_text().startswith("<?xml")


def test_runs_are_overlaid_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl
    from made_runs import write_run

    mpl.use("agg")
    for name in ("a", "b"):
        write_run(tmp_path / "results" / name, tasks={"anatomy_calibration": 40})
    run_python(block("python: display"), tmp_path, monkeypatch)
    assert (tmp_path / "overlaid.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_your_own_questions_work_as_written(tmp_path: Path, programs: Path) -> None:
    done = run_shell(block("your own questions"), tmp_path, programs)
    assert done.returncode == 0, done.stderr
    assert "|ward_calibration|" in done.stdout
    assert (tmp_path / "lm_eval_results" / "tasks" / "ward_calibration.yaml").is_file()


@pytest.mark.slow
def test_your_own_task_works_as_written(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_shell(block("your own task"), tmp_path, programs)
    assert done.returncode == 0, done.stderr
    assert "|ward_calibration|" in done.stdout
    assert "|ece " in done.stdout
    assert list(tmp_path.rglob("samples_ward_calibration_*.jsonl"))
    (ece,) = map(float, run_python(block("python: calibrated"), tmp_path, monkeypatch)[-1:])
    assert 0 <= ece <= 1


def table_values(text: str) -> dict[str, tuple[float, float]]:
    """Metric to (value, standard error) of a printed table with one task."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "±" in line]
    return {row[4]: (float(row[6]), float(row[8])) for row in rows if len(row) == 9}


def assert_shown(text: str, found: dict[str, Any]) -> None:
    shown = table_values(text)
    assert set(shown) == {"acc", *CORE}
    for name, (value, error) in shown.items():
        # Other processors round differently; a doc's confidence may move across a bin's edge.
        assert found[f"{name},none"] == pytest.approx(value, abs=0.01), name
        assert found[f"{name}_stderr,none"] == pytest.approx(error, abs=0.005), name


@pytest.mark.real_model
def test_the_demo_says_what_the_readme_shows(smollm2_args: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    results = demo.run()
    said = " ".join(capsys.readouterr().out.split())
    shown = block("demo")
    assert_shown(shown, results["results"]["quiz_calibration"])
    sentences = [line for line in shown.splitlines() if line.startswith("- ")]
    assert len(sentences) == 5
    for sentence in sentences:
        pattern = re.sub(r"\d+", r"(\\d+)", re.escape(sentence).replace(r"\ ", " "))
        found = re.search(pattern, said)
        assert found, sentence
        for now, then in zip(found.groups(), re.findall(r"\d+", sentence), strict=True):
            assert abs(int(now) - int(then)) <= 1, sentence


@pytest.mark.real_model
@pytest.mark.real_data
def test_the_mmlu_table_is_real(hub: Path, smollm2_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    results = run_tasks(smollm2_lm, ["mmlu_anatomy_calibration"], bootstrap_iters=10)
    assert_shown(block("anatomy"), results["results"]["mmlu_anatomy_calibration"])
