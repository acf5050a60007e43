"""No command writes over its input, and `tasks --for` writes nowhere but to its folder."""

from pathlib import Path

import pytest
from commands import run_command
from made_runs import write_run
from users_tasks import write_task


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "recalibrate {samples} --output {samples}",
        "recalibrate {run} --output {samples}",
        "recalibrate {run} --output {run}/link",
        "report {results} --output {results} --format json",
        "report {run} --output {run}/../{name}/{results_name} --format json",
        "decide {samples} --output {samples}",
        "compare {run} x={other} --output {results} --format json",
        "compare y={results} x={other} --output {results} --format json",
        "drift {run} {other} --output {results} --format json",
        "drift {run} {other} --history {samples}",
        "drift {run} {other} --picture {samples}",
        "export {run} --output {samples}",
    ],
)
def test_an_input_is_not_overwritten(tmp_path: Path, command: str) -> None:
    run, other = write_run(tmp_path / "a", model="a/a"), write_run(tmp_path / "b", model="b/b", seed=1)
    (samples,), (results,) = run.glob("samples_*"), run.glob("results_*")
    (run / "link").symlink_to(samples)
    before = digest(tmp_path)
    names = {"run": run, "name": run.name, "other": other, "samples": samples, "results": results}
    done = run_command(*(part.format(**names, results_name=results.name) for part in command.split()))
    assert done.exit_code == 2, done.output
    assert "would overwrite" in done.stderr
    assert digest(tmp_path) == before


def test_a_file_of_last_time_is_replaced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    for _ in range(2):
        done = run_command("recalibrate", run, "--output", run / "map.json")
        assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "x\ny", "a\\b"])
def test_a_task_s_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "tasks"
    folder.mkdir(parents=True)
    shape = {"doc_to_text": "question", "doc_to_choice": "options", "doc_to_target": "answer"}
    path = write_task(folder, "mine", **shape)
    path.write_text(path.read_text().replace("task: mine", f"task: {name!r}" if "\n" not in name else 'task: "x\\ny"'))
    before = digest(tmp_path)
    done = run_command("tasks", "--for", name, "--include_path", folder, "--output", tmp_path / "deep" / "out" / "out")
    assert done.exit_code == 2, done.output
    assert digest(tmp_path) == before
    assert not Path(f"{name}_calibration.yaml").exists()
