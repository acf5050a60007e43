"""What is released: a wheel and an sdist that work elsewhere, and everything that goes with them."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
GITHUB = REPOSITORY / ".github"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# --- wheel and sdist --------------------------------------------------------------------------------------------------


def smoke_test(venv: Path, elsewhere: Path) -> None:
    """Use what is installed, from a folder that has nothing to do with the repository."""
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(elsewhere / "hf"), "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = str(venv / "bin" / "lm-eval-calibration")
    assert run(program, "--version") == f"lm-eval-calibration {PROJECT['version']}\n"
    configs = Path(run(program, "tasks").strip())
    assert configs.is_relative_to(venv)
    assert len(list(configs.rglob("*.yaml"))) == len(list((REPOSITORY / "task_configs").rglob("*.yaml")))
    (elsewhere / "q.csv").write_text("question,a,b,answer\n1?,x,y,A\n2?,x,y,B\n3?,x,y,A\n", encoding="utf-8")
    assert "|q_calibration|" in run(program, "run", "--csv", "q.csv", "--model", "dummy")
    assert "ece" in run(program, "export", "lm_eval_results", "--format", "csv")
    code = (
        "from importlib.resources import files; print(len([*(files('lm_eval_calibration.demo') / 'quiz').iterdir()]))"
    )
    assert run(str(venv / "bin" / "python"), "-c", code) == "3\n"


@pytest.mark.slow
def test_wheel_and_sdist_install_and_work_elsewhere(tmp_path: Path) -> None:
    if os.environ.get("LM_EVAL_CALIBRATION_PACKAGE") != "1":
        pytest.skip("builds and installs (set LM_EVAL_CALIBRATION_PACKAGE=1; needs `pip install build twine`)")
    python = [sys.executable, "-m"]
    subprocess.run([*python, "build", "--outdir", str(tmp_path / "dist"), str(REPOSITORY)], check=True)
    files = sorted((tmp_path / "dist").iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"] or len(files) == 2
    subprocess.run([*python, "twine", "check", "--strict", *map(str, files)], check=True)
    for number, file in enumerate(files):
        venv = tmp_path / f"venv{number}"
        subprocess.run([*python, "venv", "--system-site-packages", str(venv)], check=True)
        site = next((venv / "lib").glob("python*")) / "site-packages"
        (site / "tests_own_environment.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", encoding="utf-8")
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(file)], check=True)
        smoke_test(venv, tmp_path / f"elsewhere{number}")


def test_the_version_stands_once_and_the_citation_follows() -> None:
    from lm_eval_calibration import __version__

    citation = read(REPOSITORY / "CITATION.cff")
    assert __version__ == PROJECT["version"] == citation["version"]
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_is_valid() -> None:
    """Its required keys, and what the Citation File Format 1.2.0 allows; cffconvert's own check where it is there."""
    citation = read(REPOSITORY / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    for entry in (citation, *citation["references"]):
        assert entry["authors"]
        for author in entry["authors"]:
            assert set(author) <= {"name"} or {"family-names", "given-names"} >= set(author)
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
    cffconvert = pytest.importorskip("cffconvert", reason="needs `pip install cffconvert`")
    cffconvert.Citation((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")).validate()


# --- workflows --------------------------------------------------------------------------------------------------------


def steps(workflow: Any) -> list[Any]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_ci_covers_platforms_pythons_and_lanes() -> None:
    jobs = read(GITHUB / "workflows" / "ci.yml")["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert matrix["python"][0] == PROJECT["requires-python"].removeprefix(">=")
    assert jobs["lanes"]["strategy"]["matrix"]["lane"] == ["oldest", "newest"]
    assert {"run": ".ci/run"} in jobs["whole"]["steps"]


def test_publishing_needs_no_token() -> None:
    workflow = read(GITHUB / "workflows" / "publish.yml")
    jobs = workflow["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert "secrets." not in (GITHUB / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert any("twine check --strict" in step.get("run", "") for step in steps(workflow))


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_no_step_pastes_a_value_into_its_script(path: Path) -> None:
    """A value in ``${{ }}`` within a script is code there; in ``env`` it is a value."""
    data = read(path)
    of_action = data.get("runs", {}).get("steps", [])
    for step in [*of_action, *(steps(data) if "jobs" in data else [])]:
        assert "${{" not in step.get("run", ""), step


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_templates_have_what_github_wants(name: str) -> None:
    template = read(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(template)
    ids = [field["id"] for field in template["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in template["body"])


# --- the drift gate as an action --------------------------------------------------------------------------------------


def gate(folder: Path, programs: Path, **inputs: str) -> tuple[int, str, str]:
    """Run the script of the action as GitHub does; return exit code, the job page and what was printed."""
    step = read(GITHUB / "actions" / "drift-gate" / "action.yml")["runs"]["steps"][-1]
    names = {"BASE": "base", "NEW": "new", "ARGUMENTS": "arguments", "UNCLEAR": "fail-on-unclear"}
    assert step["env"] == {name: f"${{{{ inputs.{given} }}}}" for name, given in names.items()}
    page = folder / "page.md"
    page.write_text("", encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder),
        "GITHUB_STEP_SUMMARY": str(page),
        "GITHUB_OUTPUT": str(folder / "output"),
        "ARGUMENTS": "",
        "UNCLEAR": "false",
        **inputs,
    }
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, page.read_text(encoding="utf-8"), done.stdout + done.stderr


@pytest.mark.slow
def test_the_action_fails_the_job_and_shows_why(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from made_runs import write_run

    monkeypatch.chdir(tmp_path)
    tasks = {"anatomy_calibration": 200}
    write_run(Path("base"), tasks=tasks)
    write_run(Path("same"), tasks=tasks, seed=1)
    write_run(Path("worse"), tasks=tasks, seed=1, sharpness=3.5)
    code, page, said = gate(tmp_path, programs, BASE="base", NEW="worse", ARGUMENTS="--metrics\nacc,ece\n")
    assert code == 1, said
    assert page.startswith("### Calibration drift\n\n❌ drifted: ece of anatomy")
    assert "::error title=drift" in said
    code, page, said = gate(tmp_path, programs, BASE="base", NEW="same", ARGUMENTS="--metrics\nece\n--tolerance\n0.9")
    assert code == 0, said
    assert "✅" in page
    code, page, said = gate(
        tmp_path, programs, BASE="base", NEW="same", ARGUMENTS="--metrics\nece\n--tolerance\n0", UNCLEAR="true"
    )
    assert code == 1, said
    assert "would settle it" in page
    assert gate(tmp_path, programs, BASE="base", NEW="nowhere")[0] == 2


# --- what the README's monthly job installs ---------------------------------------------------------------------------


def monthly_job() -> str:
    text = (REPOSITORY / "lm_eval_calibration" / "reports" / "README.md").read_text(encoding="utf-8")
    return text.split("A monthly job on GitHub")[1].split("```yaml\n")[1].split("```")[0]


def test_the_monthly_job_can_run_as_written() -> None:
    import typer
    from lm_eval._cli import HarnessCLI

    from lm_eval_calibration.cli import app

    job = yaml.safe_load(monthly_job())
    scripts = [step["run"] for step in job["jobs"]["drift"]["steps"] if "run" in step]
    (install,) = (script for script in scripts if "lm-eval-calibration[" in script)
    commands = [script for script in scripts if script.startswith("lm-eval-calibration ")]
    assert "local-completions" in commands[0]
    assert "lm-eval[api]" in install  # which that backend needs
    assert "--picture" in commands[1]
    assert "report" in install.split("lm-eval-calibration[")[1].split("]")[0].split(",")  # matplotlib
    assert scripts.index(install) < scripts.index(commands[0])
    known = typer.main.get_command(app).commands
    harness = HarnessCLI()._subparsers.choices["run"]._option_string_actions
    for command in commands:
        name = command.split()[1]
        flags = {flag for option in known[name].params for flag in option.opts} | (
            set(harness) if name == "run" else set()
        )
        assert {word for word in command.split() if word.startswith("--")} <= flags
