"""Each patch of the harness: that it is applied, does what it says, and is still needed."""

import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lm_eval import evaluator, evaluator_utils, utils
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.loggers import EvaluationTracker
from logged_runs import make_lines

from lm_eval_calibration.harness.aggregation import Logged
from lm_eval_calibration.harness.output import NotSavedError, whole_files
from lm_eval_calibration.harness.patches import PATCHES, apply
from lm_eval_calibration.harness.pools import DocPool, Statistic
from lm_eval_calibration.harness.run import RunSettings, current_run, running
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Corpus, CorpusRecord, read_records
from lm_eval_calibration.records.files import whole_file
from lm_eval_calibration.records.parquet import belongs_to
from lm_eval_calibration.tasks import CalibratedTask

assert CalibratedTask  # using it has applied the patches


class Spread(Statistic):
    """The largest less the smallest doc id: no mean of tasks' values gives it for a group."""

    def __init__(self, n_bins: int = 0, *, has_stderr: bool = True) -> None:
        self.n_bins, self.has_stderr = n_bins, has_stderr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spread) and other.n_bins == self.n_bins

    def __hash__(self) -> int:
        return hash(self.n_bins)

    def value(self, pool: DocPool) -> float:
        ids = [record.doc_id or 0 for record in pool.records]
        return float(max(ids) - min(ids))

    def stderr(self, pool: DocPool) -> float:
        return 1 / len(pool.records)


class CalibratedLike(Task):
    """What the aggregation needs of a task, and no more."""

    def __init__(self, name: str, scored_filter: str = "none", **statistics: Statistic) -> None:
        self._name, self.scored_filter, self._statistics = name, scored_filter, statistics
        self.requested_metrics = tuple(name for name in statistics if name.startswith("extra"))
        self.optional_metrics = ("extra",)

    @property
    def task_name(self) -> str:
        return self._name

    def statistics(self, records: Any) -> dict[str, Statistic]:
        return self._statistics

    def row(self, *doc_ids: int) -> dict[str, Any]:
        """Return what the harness has aggregated of its docs."""
        kept = partial(Logged, self)
        records = [
            ChoicesRecord(
                task=self._name, doc_id=i, doc_hash="d", prompt_hash="p", log_likelihoods=(0.0, -1.0), gold=0
            ).to_dict()
            for i in doc_ids
        ]
        keys = {
            RECORD_KEY: records,
            **{key: ["see calibration"] for key in self._statistics},
            "absent": ["unavailable"],
        }
        row: dict[str, Any] = {"sample_len": len(doc_ids), f"acc,{self.scored_filter}": 0.5}
        for key, items in keys.items():
            row |= {f"{key},{self.scored_filter}": kept(items), f"{key}_stderr,{self.scored_filter}": "N/A"}
        return row

    download = has_training_docs = has_validation_docs = has_test_docs = None  # type: ignore[assignment]
    doc_to_text = doc_to_target = construct_requests = process_results = None  # type: ignore[assignment]
    aggregation = higher_is_better = None  # type: ignore[assignment]


def aggregate(rows: dict[Any, tuple[int, ...]], *groups: tuple[str, list[dict[str, Any]], list[Any]]) -> dict[str, Any]:
    results = evaluator_utils.EvalAcc()
    results.metrics = {task.task_name: task.row(*doc_ids) for task, doc_ids in rows.items()}
    for name, listed, children in groups:
        group = Group.from_config({"group": name, "aggregate_metric_list": listed})
        for child in children:
            group.add(results.groups.get(child, child))
        results.groups[name] = group
    assert evaluator_utils.aggregate_groups(results) is results
    return results.metrics


SPREAD = [{"metric": "spread", "weight_by_size": True}]


def test_all_patches_are_applied_once() -> None:
    patched = [getattr(owner, name) for owner, name, _ in PATCHES]
    apply()
    assert patched == [getattr(owner, name) for owner, name, _ in PATCHES]
    assert not [function for function in patched if hasattr(function.stock, "stock")]


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_a_run_tells_how_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    task = SimpleNamespace(UNSAFE_CODE=False, eval_docs=[], build_all_requests=lambda **_: seen.append(current_run()))
    task.instances = task._instances = []
    task.apply_filters = lambda: 1 / 0
    lm = SimpleNamespace(rank=0, world_size=1)
    with pytest.raises(ZeroDivisionError):
        evaluator.evaluate(lm=lm, task_dict={"tasks": {"t": task}}, log_samples=False, bootstrap_iters=0)
    assert seen == [RunSettings(lm, {"t": task}, log_samples=False, bootstrap_iters=0)]
    assert not seen[0].has_stderrs
    assert current_run() == RunSettings()  # also after a run that failed


def test_upstream_still_tells_tasks_nothing_of_the_run() -> None:
    """Fails when the harness hands its settings to tasks: then delete the patch of ``evaluate``."""
    import inspect

    source = inspect.getsource(inspect.unwrap(evaluator.evaluate.stock))
    call = source[source.index("task.build_all_requests(") :]
    call = call[: call.index("eval_logger")]
    assert not [name for name in ("bootstrap_iters", "log_samples", "lm=lm") if name in call]
    assert "evaluate(" in inspect.getsource(inspect.unwrap(evaluator.simple_evaluate))  # by its global name


# --- save_results_samples ---------------------------------------------------------------------------------------------


def tracker_at(output_path: Path) -> EvaluationTracker:
    tracker = EvaluationTracker(output_path=str(output_path))
    tracker.date_id, tracker.general_config_tracker.model_name_sanitized = "x", "m"
    return tracker


def with_arguments(n: int) -> list[dict[str, Any]]:
    return [{**line, "arguments": [("Which?", " A")]} for line in make_lines("law", n)]


def suffixes(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("samples_*"))


@pytest.mark.parametrize("output_path", ["out", "out/m/r.json"])
def test_numbers_of_records_are_saved_beside_the_samples(tmp_path: Path, output_path: str) -> None:
    tracker_at(tmp_path / output_path).save_results_samples("law", with_arguments(30))
    assert suffixes(tmp_path / "out") == [".jsonl", ".parquet"]
    (lines,), (numbers,) = ((tmp_path / "out").rglob(f"*.{suffix}") for suffix in ("jsonl", "parquet"))
    assert belongs_to(numbers, lines)
    rows = pq.read_table(numbers).to_pylist()
    assert [row["log_likelihoods"] for row in rows] == [list(record.log_likelihoods) for record in read_records(lines)]


@pytest.mark.parametrize("kind", ["stock", "corpus", "none"])
def test_samples_without_such_records_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    stock = [{k: v for k, v in line.items() if k != RECORD_KEY} for line in with_arguments(3)]
    text = CorpusRecord(task="law", doc_id=0, doc_hash="d", prompt_hash="p", corpus=Corpus(-3.0, 2, 9))
    of_corpus = [{**stock[0], RECORD_KEY: text.to_dict()}]
    lines = {"stock": stock, "corpus": of_corpus, "none": []}[kind]
    tracker_at(tmp_path).save_results_samples("law", lines)
    assert suffixes(tmp_path) == [".jsonl"]


def test_numbers_that_cant_be_saved_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_calibration.records.parquet.whole_file", lambda path: whole_file(path / "no folder"))
    with pytest.raises(NotSavedError, match=r"numbers: .*samples_law_x.parquet can't be written"), whole_files():
        tracker_at(tmp_path).save_results_samples("law", with_arguments(3))
    assert suffixes(tmp_path) == [".jsonl"]


def test_upstream_still_saves_samples_as_text_only(tmp_path: Path) -> None:
    """Fails when the harness saves samples in a form of columns by itself."""
    EvaluationTracker.save_results_samples.stock(tracker_at(tmp_path), "law", with_arguments(3))
    assert suffixes(tmp_path) == [".jsonl"]


# --- aggregate_groups -------------------------------------------------------------------------------------------------


def test_numbers_come_from_records_and_groups_from_all_docs_each_once() -> None:
    one, two, three = (CalibratedLike(name, spread=Spread()) for name in ("one", "two", "three"))
    rows = aggregate(
        {one: (0, 2), two: (5, 6, 7), three: (1, 9)},
        ("a", SPREAD, [one, two]),
        ("b", SPREAD, [two, three]),
        ("top", SPREAD, ["a", "b"]),
    )
    assert rows["one"] == {"sample_len": 2, "acc,none": 0.5, "spread,none": 2.0, "spread_stderr,none": 1 / 2}
    assert {name: rows[name]["spread,none"] for name in ("a", "b", "top")} == {"a": 7, "b": 8, "top": 9}
    assert {name: rows[name]["spread_stderr,none"] for name in ("a", "b", "top")} == {
        "a": 1 / 5,
        "b": 1 / 5,
        "top": 1 / 7,
    }


def test_means_of_tasks_stay_where_they_are_asked_for_or_all_there_is() -> None:
    one, two = (CalibratedLike(name, spread=Spread()) for name in ("one", "two"))
    unweighted = [{"metric": "spread", "weight_by_size": False}]
    assert aggregate({one: (0, 2), two: (5, 9)}, ("g", unweighted, [one, two]))["g"]["spread,none"] == 3.0
    plain = CalibratedLike("plain")
    plain.row = lambda *_: {"sample_len": 6, "spread,none": 10.0, "spread_stderr,none": 0.5}  # type: ignore[method-assign]
    row = aggregate({one: (0, 2), plain: ()}, ("g", SPREAD, [one, plain]))["g"]
    assert row["spread,none"] == (2 * 2 + 10.0 * 6) / 8


def test_tasks_that_compute_otherwise_have_no_pooled_number(harness_log: pytest.LogCaptureFixture) -> None:
    one, two = (CalibratedLike(f"t{n}", spread=Spread(n)) for n in (10, 15))
    row = aggregate({one: (0, 2), two: (5, 9)}, ("g", SPREAD, [one, two]))["g"]
    assert np.isnan([row["spread,none"], row["spread_stderr,none"]]).all()
    assert "a group mixes tasks with n_bins 10 and 15: its spread is undefined" in harness_log.text


def test_numbers_under_a_filter_of_its_own_reach_the_group() -> None:
    one = CalibratedLike("one", "strict", extra=Spread())
    two = CalibratedLike("two", extra=Spread())
    rows = aggregate({one: (0, 2), two: (5, 9)}, ("g", SPREAD, [one, two]))
    assert rows["g"]["extra,none"] == 9
    assert rows["g"]["sample_count"] == {"extra,none": 4}
    assert (rows["one"]["extra,strict"], rows["two"]["extra,none"]) == (2, 4)


def test_a_group_leaves_out_what_not_all_of_its_tasks_have(harness_log: pytest.LogCaptureFixture) -> None:
    one, two = CalibratedLike("one", extra=Spread(), spread=Spread()), CalibratedLike("two", spread=Spread())
    row = aggregate({one: (0, 2), two: (5, 9)}, ("g", SPREAD, [one, two]))["g"]
    assert "extra,none" not in row
    assert "g: extra is left out: not all of its tasks have it (two, ...)" in harness_log.text


def test_rows_without_a_standard_error_show_none() -> None:
    one = CalibratedLike("one", spread=Spread(has_stderr=False))
    rows = aggregate({one: (0, 2)}, ("g", SPREAD, [one]))
    assert not [key for name in ("one", "g") for key in rows[name] if key.startswith("spread_stderr")]


@pytest.mark.parametrize(("doc_ids", "iterations"), [((3,), 9), ((3, 4), 0)])
def test_one_doc_or_no_resamples_have_no_standard_error(doc_ids: tuple[int, ...], iterations: int) -> None:
    one = CalibratedLike("one", spread=Spread())
    with running(RunSettings(bootstrap_iters=iterations)):
        rows = aggregate({one: doc_ids}, ("g", SPREAD, [one]))
    assert rows["one"]["spread_stderr,none"] == rows["g"]["spread_stderr,none"] == "N/A"


def test_upstream_still_averages_groups_and_takes_listed_metrics_only() -> None:
    """Fails when the harness pools groups by itself, or aggregates what is not in a group's list."""
    one, two = (CalibratedLike(name) for name in ("one", "two"))
    results = evaluator_utils.EvalAcc()
    for task, value in ((one, 1.0), (two, 4.0)):
        results.metrics[task.task_name] = {"spread,none": value, "extra,none": value, "sample_len": 3}
    results.groups["g"] = group = Group.from_config({"group": "g", "aggregate_metric_list": SPREAD})
    for task in (one, two):
        group.add(task)
    evaluator_utils.aggregate_groups.stock(results)
    assert results.metrics["g"]["spread,none"] == 2.5
    assert "extra,none" not in results.metrics["g"]


# --- arrows and n-shot of nested groups -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_propagate_higher_is_better", "_propagate_num_fewshot"])
def test_upstream_still_needs_the_patch_for_nested_groups(name: str) -> None:
    """Fails when the harness hands arrows and shots up by itself: then delete the patch."""
    patched = getattr(evaluator_utils, name)
    leaf = {"acc": True} if "higher" in name else 0
    results: dict[Any, dict[str, Any]] = {}
    for function in (patched.stock, patched):
        low, top = Group("low"), Group("top")
        low._children["task"] = None  # type: ignore[assignment]
        top._children["low"] = low
        results[function] = {"task": leaf}
        function([top, low], results[function])
    assert "top" not in results[patched.stock]
    assert results[patched] == {"task": leaf, "low": leaf, "top": leaf}


# --- templates --------------------------------------------------------------------------------------------------------


def test_upstream_still_compiles_a_template_for_every_doc() -> None:
    """Fails when the harness keeps compiled templates: then delete the patch."""
    patched, template = utils.env.from_string, "{{ question }} of {{ number }}"
    assert patched.stock(template) is not patched.stock(template)
    assert patched(template) is patched(template)
    docs = [{"question": "Which", "number": number} for number in (1, 2)]
    assert [utils.apply_template(template, doc) for doc in docs] == ["Which of 1", "Which of 2"]


# --- the commit -------------------------------------------------------------------------------------------------------


def test_git_is_asked_for_a_commit_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first half fails when the harness keeps git's complaint to itself: then delete the patch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    patched = evaluator.get_git_commit_hash
    assert patched.stock() is None
    assert "fatal: not a git repository" in capfd.readouterr().err
    assert patched() is None
    assert capfd.readouterr().err == ""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], check=True)
    assert patched() == patched.stock()
    assert patched()
