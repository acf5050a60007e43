"""Of a model in a folder, its name alone is shown."""

import json
from pathlib import Path

import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.results.shown import model_name, without_folders

FOLDER = "/home/somebody/models/small-model"


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (FOLDER, "small-model"),
        (f"{FOLDER}/", "small-model"),
        ("org/name", "org/name"),
        ("name", "name"),
        ("", ""),
        ("__home__somebody__models__small-model", "small-model"),
    ],
)
def test_a_folder_s_name(model: str, shown: str) -> None:
    assert model_name(model) == shown


def test_settings_keep_all_but_folders() -> None:
    given = {"model_args": {"pretrained": FOLDER, "dtype": "float32"}, "batch_size": 4, "seeds": [1, None]}
    assert without_folders(given) == given | {"model_args": {"pretrained": "small-model", "dtype": "float32"}}
    assert without_folders(f"pretrained={FOLDER},dtype=float32") == "pretrained=small-model,dtype=float32"
    url = "base_url=http://127.0.0.1:8000/v1/completions,model=x"
    assert without_folders(url) == url


def test_no_command_shows_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(Path(name), tasks={"anatomy_calibration": 40})
        for file in Path(name).rglob("results_*.json"):
            data = json.loads(file.read_text(encoding="utf-8")) | {"model_name": FOLDER}
            data.setdefault("config", {})["model_args"] = f"pretrained={FOLDER}"
            file.write_text(json.dumps(data), encoding="utf-8")
    run = load_run("a")
    assert run.model == "small-model"
    texts = [repr(run), run._repr_html_()]
    for command in (
        ["export", "a", "--format", "csv"],
        ["export", "a", "--format", "model-card"],
        ["report", "a", "--output", "report.md"],
        ["report", "a", "--output", "report.html"],
        ["evidence", "a", "--domain", "exams", "--output", "statement"],
        ["drift", "a", "b", "--history", "runs.jsonl"],
        ["compare", "one=a", "two=b", "--format", "csv"],
    ):
        done = run_command(*command)
        texts.append(done.output)
    files = [p for p in tmp_path.iterdir() if p.is_file()] + list((tmp_path / "statement").rglob("*.*"))
    texts += [path.read_text(encoding="utf-8") for path in files if path.suffix in (".json", ".jsonl", ".md", ".html")]
    assert len(files) >= 4
    assert not [text for text in texts if "/home/somebody" in text]
    assert any("small-model" in text for text in texts)
