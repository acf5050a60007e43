import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lm_eval_calibration import __version__
from lm_eval_calibration.cli import app
from lm_eval_calibration.cli.harness_command import with_samples

runner = CliRunner()


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--tasks", "x"], ["--log_samples", "--output_path", "lm_eval_results", "--tasks", "x"]),
        (["-oout"], ["--log_samples", "--output_path", "lm_eval_results", "-oout"]),
    ],
)
def test_samples_are_logged_unless_told_not_to(given: list[str], expected: list[str]) -> None:
    assert with_samples(given) == expected


def test_a_config_file_may_name_the_output_path(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("output_path: elsewhere\n", encoding="utf-8")
    assert with_samples(["--config", str(config)]) == ["--log_samples", "--config", str(config)]
    config.write_text("output_path: elsewhere\nlog_samples: false\n", encoding="utf-8")
    assert with_samples([f"--config={config}"]) == [f"--config={config}"]
    assert "--output_path" in with_samples(["--config", str(tmp_path / "missing.yaml")])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to run: --tasks NAME,..."),
        (["--model", "dummy"], "name what to run: --tasks NAME,..."),
        pytest.param(
            ["--model", "dummy", "--tasks", "nothing_*_calibration"],
            "no task 'nothing_*_calibration'",
            marks=pytest.mark.slow,  # the stock index is read
        ),
    ],
)
def test_a_run_of_nothing_is_one_clear_error(arguments: list[str], said: str) -> None:
    result = runner.invoke(app, ["run", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_tasks_prints_the_directory() -> None:
    result = runner.invoke(app, ["tasks"])
    assert result.exit_code == 0
    assert (Path(result.stdout.strip()) / "mmlu" / "mmlu_anatomy_calibration.yaml").is_file()


def test_tasks_list_names_them() -> None:
    names = runner.invoke(app, ["tasks", "--list"]).stdout.split()
    assert len(names) == len(set(names)) == 7 + 66
    assert "mmlu_calibration" in names


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["tasks", "--help"], ["demo", "--help"]])
def test_help_reads_well(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments, terminal_width=100)
    assert result.exit_code == 0
    assert "Usage: lm-eval-calibration" in result.stdout


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).stdout == f"lm-eval-calibration {__version__}\n"


def test_tasks_needs_neither_torch_nor_the_harness() -> None:
    code = (
        "import sys; from lm_eval_calibration.cli import app; app(['tasks'], standalone_mode=False);"
        "sys.exit(bool({'torch', 'lm_eval', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_an_unknown_subject_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["run", "--model", "dummy", "--tasks", "mmlu_anatomi_calibration"]
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "error: no task 'mmlu_anatomi_calibration'; the nearest are mmlu_anatomy_calibration" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def rows_of(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("|")]


@pytest.mark.slow
def test_run_for_real(tmp_path: Path, python: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"{i}?", "choices": ["a", "b", "c"], "answer": i % 3} for i in range(6)]
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(
        "task: own_calibration\nclass: !function lm_eval_calibration.tasks.CalibratedTask\n"
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.json}}}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer\n",
        encoding="utf-8",
    )
    arguments = ["run", "--model", "dummy", "--tasks", "own_calibration", "--include_path", str(tmp_path)]
    done = run_in(tmp_path, *python, "-m", "lm_eval_calibration", *arguments, "-oout")
    assert done.returncode == 0, done.stderr
    assert "|own_calibration|" in done.stdout
    assert "|brier_score|" in done.stdout
    assert "DummyLM gives no token distributions" in done.stderr
    assert "Samples are not logged" not in done.stderr
    assert list((tmp_path / "out").rglob("samples_own_calibration_*.jsonl"))
    monkeypatch.chdir(tmp_path)
    quiet = runner.invoke(app, [*arguments, "-oquiet", "--no_log_samples"])
    assert quiet.exit_code == 0, quiet.output
    assert rows_of(quiet.stdout) == rows_of(done.stdout)
    assert "Samples are not logged" in quiet.stderr
    assert not list(tmp_path.joinpath("quiet").rglob("samples_own_calibration_*.jsonl"))
    assert not (tmp_path / "lm_eval_results").exists()


def test_the_harness_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.__main__
    import lm_eval.tasks

    from lm_eval_calibration.cli import harness_command as command
    from lm_eval_calibration.tasks import CalibrationTaskManager

    seen = []

    def cli_evaluate() -> None:
        seen.append((list(sys.argv), issubclass(lm_eval.tasks.TaskManager, CalibrationTaskManager), gc.isenabled()))
        raise RuntimeError

    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", cli_evaluate)
    before = list(sys.argv), lm_eval.tasks.TaskManager
    with pytest.raises(RuntimeError):
        command.run(["--tasks", "x"], log_samples=False)
    assert seen == [(["lm_eval", "run", "--tasks", "x"], True, False)]
    assert (list(sys.argv), lm_eval.tasks.TaskManager) == before
    assert gc.isenabled()


@pytest.mark.slow
def test_garbage_is_collected_once_the_model_is_loaded(tmp_path: Path, python: list[str]) -> None:
    (tmp_path / "rows.json").write_text('{"q": "1?", "choices": ["a", "b"], "answer": 0}', encoding="utf-8")
    (tmp_path / "model.py").write_text(
        "import gc\nfrom lm_eval.models.dummy import DummyLM\nfrom lm_eval.api.registry import register_model\n"
        "@register_model('watched')\nclass Watched(DummyLM):\n"
        "    def __init__(self, **_):\n        super().__init__()\n        print('loading', gc.isenabled())\n"
        "    def loglikelihood(self, *requests, **options):\n        print('answering', gc.isenabled())\n"
        "        return super().loglikelihood(*requests, **options)\n"
        "from lm_eval_calibration.cli import main\nmain()\n",
        encoding="utf-8",
    )
    (tmp_path / "own.yaml").write_text(
        f"task: own\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.json}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: choices\n"
        "doc_to_target: answer\n",
        encoding="utf-8",
    )
    arguments = ["run", "--model", "watched", "--tasks", "own_calibration", "--include_path", "."]
    done = run_in(tmp_path, *python, "model.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:4] == ["loading", "False", "answering", "True"]
