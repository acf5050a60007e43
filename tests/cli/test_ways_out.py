"""Errors that newcomers meet: one line with the way out."""

from typing import Any

import pytest
from commands import run_command

from lm_eval_calibration.cli import harness_command
from lm_eval_calibration.cli.ways_out import way_out


def chained(first: Exception, second: Exception) -> Exception:
    second.__cause__ = first
    return second


SERVER = ["run", "--model_args", "base_url=http://127.0.0.1:9/v1/completions,model=x"]
REFUSED = RuntimeError("400 Client Error: Bad Request for url: http://127.0.0.1:9/v1/completions")


@pytest.mark.parametrize(
    ("error", "arguments", "said"),
    [
        (ModuleNotFoundError("No module named 'tenacity'", name="tenacity"), [], "pip install 'lm-eval[api]'"),
        (
            ModuleNotFoundError(
                "Attempted to use an API model, but the required packages `aiohttp` are not installed. pip "
                "install lm-eval[api]"
            ),
            [],
            "aiohttp is not installed: pip install 'lm-eval[api]'",
        ),
        (
            ModuleNotFoundError("No module named 'jinja2'", name="jinja2"),
            [],
            "pip install 'lm-eval-calibration[report]'",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), [], "--device cpu"),
        (chained(REFUSED, RuntimeError("retries")), SERVER, "add tokenized_requests=False to --model_args"),
        (ConnectionError("refused"), SERVER, "no server answers at http://127.0.0.1:9/v1/completions"),
        (
            OSError("gpt3 is not a local folder and is not a valid model identifier listed on 'x'. Else"),
            [],
            "name a folder",
        ),
    ],
)
def test_the_way_out_is_named(error: Exception, arguments: list[str], said: str) -> None:
    line = way_out(error, arguments)
    assert line is not None
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ModuleNotFoundError("No module named 'mine'", name="mine"), []),
        (ValueError("anything"), SERVER),
        (REFUSED, ["run", "--model_args", "base_url=x,tokenized_requests=False"]),
        (OSError("no space left on device"), []),
    ],
)
def test_what_is_not_known_stays_as_it_is(error: Exception, arguments: list[str]) -> None:
    assert way_out(error, arguments) is None


def test_the_command_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'tenacity'", name="tenacity")

    monkeypatch.setattr(harness_command, "run_command", fail)
    done = run_command("run", "--tasks", "mmlu_anatomy_calibration")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "error: tenacity is not installed: pip install 'lm-eval[api]'"


@pytest.mark.parametrize(
    ("tasks", "hint"),
    [
        (
            ["--tasks", "arc_easy,mmlu_anatomy_calibration"],
            "arc_easy: run without calibration; with it: --tasks arc_easy_calibration",
        ),
        (["--tasks=arc_easy"], "arc_easy: run without calibration"),
        (["--tasks", "arc_easy", "boolq", "--limit", "3"], "arc_easy, boolq: run without calibration"),
        (["--tasks", "arc_easy,arc_easy_calibration"], ""),
        (["--tasks", "own", "--include_path", "."], ""),
    ],
)
def test_a_forgotten_suffix_is_said_before_anything_is_loaded(
    tasks: list[str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness_command, "run_command", lambda *_, **__: None)
    done = run_command("run", *tasks)
    assert done.exit_code == 0, done.stderr
    assert hint in done.stderr if hint else done.stderr == ""


def test_a_table_among_the_tasks_is_a_hint_at_csv() -> None:
    done = run_command("run", "--tasks", "ward.csv", "--model", "dummy")
    assert done.exit_code == 2
    assert "ward.csv is a table, not a task: lm-eval-calibration run --csv ward.csv" in done.stderr
