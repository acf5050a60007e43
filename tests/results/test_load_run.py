"""A run read from its files: what it holds, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_runs import TIME, make_lines, write_run

from lm_eval_calibration import load_run, metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.records import OTHER_FILTER, Record, metric_arrays
from lm_eval_calibration.results.measured import accuracy

GROUPS = {"all": ["medicine", "law"], "medicine": ["a", "b"]}
TASKS = ("a", "b", "law")


def lines_of(task: str) -> list[dict[str, Any]]:
    return make_lines(task, n=40 if task == "b" else 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "out", {task: lines_of(task) for task in TASKS}, groups=GROUPS)


def test_metrics_are_those_of_the_records(folder: Path) -> None:
    run = load_run(folder)
    records = [Record.from_dict(line["calibration"]) for task in TASKS for line in lines_of(task)]
    for tasks, of_these in ((None, records), ("medicine", records[:70]), ("law", records[70:]), (["a", "law"], None)):
        chosen = of_these if of_these is not None else [*records[:30], *records[70:]]
        found = run.metrics(tasks, names=("acc", *CORE, "overconfidence"))
        assert found["acc"].value == pytest.approx(np.mean([record.correct for record in chosen]), abs=1e-12)
        for name in (*CORE, "overconfidence"):
            metric = metrics.CATALOG[name]
            arrays = metric_arrays(chosen, metric.kind, 10)
            assert found[name].value == pytest.approx(metric.value(*arrays), abs=1e-12), name
            assert found[name].stderr == pytest.approx(metric.stderr(*arrays), abs=1e-12), name
            assert (found[name].low, found[name].high) == pytest.approx(metric.interval(*arrays), abs=1e-12), name
            assert found[name].n_docs == len(chosen)
            assert run.null(name, tasks) == metric.null(*arrays)


def test_what_the_run_was(folder: Path) -> None:
    run = load_run(folder)
    assert (run.model, run.tasks, len(run), run.n_bins) == ("org/model", TASKS, 100, 10)
    assert run.groups == {"all": TASKS, "medicine": ("a", "b")}
    assert run.versions == {"lm-eval": "0.4.13", "transformers": "5.0.0"}
    assert run.certificates == [({"backend": "hf"}, 100)]
    assert run.configuration.settings[0]["model_args"] == {"pretrained": "org/model"}
    assert run.configuration.dates == [TIME]
    assert repr(run) == "<Run of org/model: 100 docs of 3 tasks>"


@pytest.mark.parametrize("name", [f"results_{TIME}.json", ""])
def test_the_results_file_or_its_folder_is_the_run(folder: Path, name: str) -> None:
    assert len(load_run(folder / "org__model" / name)) == 100


def test_samples_files_alone_are_a_run_too(folder: Path) -> None:
    law = folder / "org__model" / f"samples_law_{TIME}.jsonl"
    run = load_run(law, law)  # named twice, it is still one file
    assert (run.model, run.tasks, len(run)) == ("org/model", ("law",), 30)
    moved = folder / "mine.jsonl"
    moved.write_bytes(law.read_bytes())
    assert (load_run(moved).model, load_run(moved).tasks) == ("out", ("law",))


def test_calls_of_the_harness_one_after_another_are_one_run(folder: Path) -> None:
    write_run(folder, {"later": make_lines("later", n=5)}, time="2026-01-02T10-00-00.0")
    assert load_run(folder).tasks == ("a", "b", "later", "law")


def test_docs_are_read_again_when_asked_for(folder: Path) -> None:
    run = load_run(folder)
    lines = [line for task in TASKS for line in lines_of(task)]
    assert len(run.records) == len(run.samples) == 100
    assert [run.samples[i].line for i in (0, 45, -1)] == [lines[i] for i in (0, 45, -1)]
    assert [record.doc_hash for record in run.records[28:32]] == [line["doc_hash"] for line in lines[28:32]]
    assert list(run.records) == [Record.from_dict(line["calibration"]) for line in lines]


def test_the_frame_has_a_row_a_doc(folder: Path) -> None:
    run = load_run(folder)
    frame = run.to_frame()
    assert list(frame.columns) == ["task", "doc_id", "doc_hash", "prompt_hash", "kind", "confidence", "correct"]
    assert frame["doc_hash"].tolist() == [record.doc_hash for record in run.records]
    assert metrics.ece(frame["confidence"], frame["correct"].astype(int)) == run.metrics(names=("ece",))["ece"].value


def test_a_broken_label_counts_in_acc_alone(tmp_path: Path) -> None:
    lines = make_lines("law", n=20)
    lines[3]["calibration"]["gold"] = None
    run = load_run(write_run(tmp_path, {"law": lines}))
    right = sum(record.correct or 0 for record in run.records)
    found = run.metrics(names=("acc", "ece"))
    assert (found["acc"].value, found["acc"].n_docs, found["ece"].n_docs) == (right / 20, 20, 19)
    assert run.to_frame()["correct"].isna().tolist() == [i == 3 for i in range(20)]


def test_what_is_undefined_says_why(tmp_path: Path) -> None:
    lines = make_lines("law", n=6)
    for line in lines:
        line["calibration"]["gold"] = int(np.argmax(line["calibration"]["log_likelihoods"]))
        del line["calibration"]["log_probs"], line["calibration"]["large_probs"]
    found = load_run(write_run(tmp_path, {"law": lines})).metrics()
    assert math.isnan(found["auroc"].value)
    assert "every doc is correct" in found["auroc"].reason
    assert found["full_ece"].reason == "law doc 0: no token distributions were recorded"
    assert found["ece"].reason is None


def test_n_bins_is_the_run_s_or_as_asked(folder: Path) -> None:
    file = next(folder.rglob("results_*.json"))
    data = json.loads(file.read_text(encoding="utf-8"))
    for config in data["configs"].values():
        config["metadata"]["calibration"]["n_bins"] = 15
    file.write_text(json.dumps(data), encoding="utf-8")
    run = load_run(folder)
    assert run.n_bins == 15
    assert run.metrics(names=("ece",))["ece"].value == metrics.ece(*run.arrays("top_label"), n_bins=15)
    assert load_run(folder, n_bins=5).n_bins == 5


def test_lines_of_other_filters_are_no_docs_of_their_own(tmp_path: Path) -> None:
    lines = make_lines("law", n=8)
    others = [{**line, "filter": "flexible", "calibration": f"{OTHER_FILTER} strict"} for line in lines]
    size = {"n-samples": {"law": {"original": 8, "effective": 8}}}
    run = load_run(write_run(tmp_path, {"law": [*lines, *others]}, **size))
    assert (run.tasks, len(run)) == (("law",), 8)


def test_a_notebook_shows_a_table(folder: Path) -> None:
    shown = load_run(folder)._repr_html_()
    assert shown.count("<tr>") == 1 + 2 + 3
    assert "<th>medicine</th><td>70</td>" in shown
    assert "&lt;Run of org/model" in shown
    found = load_run(folder).metrics("medicine", names=["ece"])["ece"]
    assert f"{found.value:.4f} [{found.low:.3f}, {found.high:.3f}]" in shown
    assert "95% intervals in brackets" in shown


def test_the_diagram_shows_the_ece(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="diagrams need matplotlib (extra `report`)").use("Agg")
    import matplotlib.pyplot as plt

    run = load_run(folder)
    axes = run.plot_reliability(tasks="medicine")
    assert axes.get_title().startswith(f"ECE {run.metrics('medicine', names=('ece',))['ece'].value:.3f} of 70 docs")
    assert run.plot_reliability(axes) is axes
    plt.close("all")


def lose_all_samples(folder: Path) -> None:
    for path in folder.rglob("samples_*.jsonl"):
        path.unlink()


def empty(folder: Path) -> None:
    for path in [*folder.rglob("*.json*")]:
        path.unlink()


def empty_a_file(folder: Path) -> None:
    (folder / "org__model" / f"results_{TIME}.json").unlink()
    for path in folder.rglob("samples_*.jsonl"):
        path.write_text("", encoding="utf-8")


def run_again(folder: Path) -> None:
    write_run(folder, {"law": make_lines("law", n=5)}, time="2026-01-02T10-00-00.0")


def run_another_model(folder: Path) -> None:
    write_run(folder, {"tax": make_lines("tax", n=5)}, model="org/other")


def remove(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose_all_samples, rf"results_{TIME}\.json: no samples_\*_{TIME}\.jsonl beside it: run .* --log_samples"),
        (empty, r"out holds no samples_\*\.jsonl: run the harness with --log_samples"),
        (
            empty_a_file,
            r"nothing can be read: .*samples_a.*: no lines; .*samples_b.*: no lines; .*samples_law.*: no lines",
        ),
        (run_again, r"out holds 2 runs of one model: name its results_.*: org/model \(2 runs, .*: a, b, law\)"),
        (run_another_model, r"out holds 2 runs of 2 models: name .*: org/model \(.*\); org/other \(.*: tax\)"),
        (remove, r"out does not exist"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, harm, message: str) -> None:
    harm(folder)
    with pytest.raises(UserError, match=message):
        load_run(folder)


def test_no_other_file_is_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"notes\.txt is not the folder of a run, results_\*\.json or samples_\*\.jsonl"
    ):
        load_run(tmp_path / "notes.txt")


def test_names_that_are_none_are_refused(folder: Path) -> None:
    run = load_run(folder)
    with pytest.raises(UserError, match="no task or group 'x' in the run; there are a, b, law, all, medicine"):
        run.metrics("x")
    with pytest.raises(ValueError, match="no metric 'x'; there are acc, brier_score"):
        run.metrics(names=("x",))


@pytest.mark.parametrize(("n_right", "n_docs"), [(0, 12), (7, 20), (30, 30)])
def test_accuracy_has_one_interval_on_every_page(n_right, n_docs):
    correct = np.arange(n_docs) < n_right
    found = accuracy(correct)
    assert (found.low, found.high) == pytest.approx(metrics.acc_interval(np.full(n_docs, 0.7), correct), abs=1e-12)
