"""Docs that were drawn together: from the option of a task to its table, log and records, and to every command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from made_runs import write_run
from tiny import make_config, make_group, make_rows, run_tasks

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import TaskError, UserError
from lm_eval_calibration.harness.redaction import redacted_results
from lm_eval_calibration.recalibration import Docs, cross_fit
from lm_eval_calibration.records import ChoicesRecord, Columns, Record, cluster_of, metric_arrays
from lm_eval_calibration.results import load_run
from lm_eval_calibration.tasks import CalibratedTask
from lm_eval_calibration.tasks.clusters import shared_field

LONG = "A passage of our own about letters, long enough that nobody would write it twice by chance. " * 2


def make_task(name: str = "letters_calibration", n: int = 40, cluster: str = "doc.meta.page", **options: Any) -> Any:
    rows = [{**row, "meta": {"page": i // 4}} for i, row in enumerate(make_rows(n))]
    calibration = {"cluster": cluster, **options}
    return CalibratedTask(make_config(rows, name, metadata={"version": 1, "calibration": calibration}))


def records_of(found: dict[str, Any], task: str = "letters_calibration") -> list[Record]:
    return [Record.from_dict(sample["calibration"]) for sample in found["samples"][task]]


def test_errors_intervals_and_nulls_go_by_the_field(gpt2_lm: Any) -> None:
    found = run_tasks(gpt2_lm, [make_task(intervals=True, nulls=True)], bootstrap_iters=100)
    row, records = found["results"]["letters_calibration"], records_of(found)
    arrays, cluster = metric_arrays(records, "top_label", 10), np.arange(40) // 4
    assert row["n_clusters,none"] == 10
    assert row["ece_stderr,none"] == metrics.ece_stderr(*arrays, cluster=cluster) != metrics.ece_stderr(*arrays)
    assert (row["auroc_low,none"], row["auroc_high,none"]) == pytest.approx(
        metrics.auroc_interval(*arrays, cluster=cluster)
    )
    assert row["ece_p,none"] == metrics.ece_null(*arrays, cluster=cluster).p_value
    assert len({record.cluster for record in records}) == 10
    assert records[0].cluster == records[3].cluster == cluster_of({"meta": {"page": 0}}, "doc.meta.page")


def test_a_group_has_the_clusters_of_all_its_tasks(gpt2_lm: Any) -> None:
    """Page 0 of one task is page 0 of the other."""
    tasks = [make_task("one_calibration"), make_task("two_calibration", 20)]
    found = run_tasks(gpt2_lm, [make_group("both", tasks)], bootstrap_iters=100)
    assert [found["results"][name]["n_clusters,none"] for name in ("one_calibration", "two_calibration")] == [10, 5]
    assert found["results"]["both"]["n_clusters,none"] == 10


def test_redacted_runs_keep_the_clusters_but_not_what_they_are(gpt2_lm: Any) -> None:
    found = redacted_results(run_tasks(gpt2_lm, [make_task()]))
    assert found["samples"]["letters_calibration"][0]["doc"] is None
    assert len({record.cluster for record in records_of(found)}) == 10


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("page", "cluster is 'page', not a field of the docs such as doc.passage_id"),
        ("doc.", "cluster is 'doc.', not a field"),
        (
            "doc.meta.side",
            "doc 0: calibration option cluster is 'doc.meta.side', but the doc has no 'side'",
        ),
        ("doc.topic.page", "has no 'topic', it has question, choices, answer, meta"),
        ("doc.question.page", "has no 'page', it has no fields"),
    ],
)
def test_bad_fields_are_named_before_the_model_runs(gpt2_lm: Any, cluster: str, message: str) -> None:
    with pytest.raises(TaskError, match=message.replace(".", r"\.")):
        run_tasks(gpt2_lm, [make_task(cluster=cluster)])


def test_a_doc_with_nothing_in_the_field_is_named() -> None:
    for nothing in (None, "", float("nan")):
        with pytest.raises(ValueError, match="says of no doc what it belongs to"):
            cluster_of({"page": nothing}, "doc.page")


@pytest.mark.parametrize(
    ("n", "cluster", "message"),
    [
        (4, "doc.meta.page", "doc.meta.page is the same in all 4 docs: one cluster has no standard error"),
        (8, "doc.question", "doc.question is another in each of the 8 docs: there is nothing to cluster by"),
    ],
)
def test_fields_that_make_no_clusters_are_told(
    gpt2_lm: Any, n: int, cluster: str, message: str, harness_log: pytest.LogCaptureFixture
) -> None:
    found = run_tasks(gpt2_lm, [make_task(n=n, cluster=cluster)], bootstrap_iters=100)
    assert message in harness_log.text
    row = found["results"]["letters_calibration"]
    assert np.isfinite(row["ece,none"])
    assert np.isnan(row["ece_stderr,none"]) == (n == 4)


def test_the_log_says_when_docs_look_clustered(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "meta": {"text": f"{LONG}{i // 4}"}} for i, row in enumerate(make_rows(12))]
    run_tasks(gpt2_lm, [CalibratedTask(make_config(rows))])
    line = "12 of 12 docs share 3 values of doc.meta.text: intervals that take docs as independent are too narrow"
    assert harness_log.text.count(line) == 1
    assert "Set metadata.calibration.cluster to doc.meta.text (or pass --cluster doc.meta.text" in harness_log.text


@pytest.mark.parametrize(
    ("docs", "found"),
    [
        ([{"a": LONG + "1"}, {"a": LONG + "1"}, {"a": LONG + "2"}], ("doc.a", 2, 1)),
        ([{"a": LONG}] * 3, None),  # an instruction
        ([{"a": "yes"}, {"a": "yes"}, {"a": "no"}], None),  # short
        ([{"a": f"{LONG}{i}"} for i in range(9)] + [{"a": f"{LONG}0"}], ("doc.a", 2, 1)),
        ([{"a": f"{LONG}{i}"} for i in range(11)] + [{"a": f"{LONG}0"}], None),  # two of twelve
        (["no mapping"] * 3, None),
    ],
)
def test_shared_field(docs: Any, found: Any) -> None:
    assert shared_field(docs) == found


def test_lines_of_one_program_are_a_cluster(hub: Path) -> None:
    from lm_eval_calibration.harness.stock import read_config
    from lm_eval_calibration.tasks.configuration import configuration

    path = Path(__file__).parents[2] / "task_configs/code/code_line_completion_calibration.yaml"
    assert configuration(read_config(path)).options.cluster == "doc.task_id"


# --- folds -----------------------------------------------------------------------------------------------------------


def test_folds_split_no_cluster_and_are_as_before_without() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(1, 41, dtype=np.uint64), 5)
    logits = rng.normal(size=(200, 4))
    labels = np.where(rng.random(200) < 0.6, logits.argmax(axis=1), 0)
    hashes = [f"doc {i}" for i in range(200)]
    crossed = cross_fit("temperature", Docs.of(logits, labels, hashes, cluster_ids=ids))
    assert all(len(np.unique(crossed.fold[ids == one])) == 1 for one in np.unique(ids))
    alone = cross_fit("temperature", Docs.of(logits, labels, hashes))
    none = cross_fit("temperature", Docs.of(logits, labels, hashes, cluster_ids=np.zeros(200, np.uint64)))
    assert np.array_equal(alone.fold, none.fold)
    assert crossed.forecasts.cluster is not None
    assert alone.forecasts.cluster is None


def test_docs_of_no_cluster_are_alone_beside_others() -> None:
    records = [
        ChoicesRecord(
            task="t", doc_id=i, doc_hash=str(i), prompt_hash="", log_likelihoods=(-1.0, -2.0), gold=0, cluster=c
        )
        for i, c in enumerate(["0" * 15 + "a", None, "0" * 15 + "a", None])
    ]
    clusters = Columns.of(records).clusters("top_label")
    assert clusters is not None
    assert clusters[0] == clusters[2]
    assert len(np.unique(clusters)) == 3
    assert Record.from_dict(json.loads(json.dumps(records[0].to_dict()))) == records[0]
    assert "cluster" not in records[1].to_dict()


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    tasks = {"anatomy_calibration": 200, "law_calibration": 100}
    return (
        write_run(root / "a", tasks=tasks, passages=20),
        write_run(root / "b", tasks=tasks, passages=20, model="org/other", seed=3, sharpness=2.5),
    )


def test_metrics_of_a_run_go_by_the_flag(folders: tuple[Path, Path]) -> None:
    run, alone = load_run(folders[0], cluster="doc.passage"), load_run(folders[0])
    task = "anatomy_calibration"
    assert (run.n_clusters(task), run.n_clusters(), alone.n_clusters()) == (20, 20, None)
    arrays, cluster = run.arrays("top_label", task), np.arange(200) % 20
    for name in ("ece", "auroc", "overconfidence"):
        found = run.metrics(task, names=[name])[name]
        metric = metrics.CATALOG[name]
        assert (found.low, found.high) == metric.interval(*arrays, cluster=cluster)
        assert found.stderr == metric.stderr(*arrays, cluster=cluster)
        assert found.n_clusters == 20
        assert run.null(name, task) == metric.null(*arrays, cluster=cluster)  # type: ignore[misc]
    assert run.metrics(task, names=["acc"])["acc"].n_clusters == 20
    assert load_run(folders[0], cluster="").n_clusters() is None


def test_every_command_takes_the_flag_and_says_how_many(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = folders
    flag = ("--cluster", "doc.passage")
    report = json.loads(_written(tmp_path / "r.json", "report", a, *flag))
    assert report["method"]["Clusters"].startswith("20, drawn whole")
    assert report["domains"][0]["metrics"]["ece"]["n_clusters"] == 20
    table = json.loads(_written(tmp_path / "c.json", "compare", a, b, *flag))
    assert table["tasks"][1]["runs"]["model"]["n_clusters"] == 20
    assert any("200 docs of 20 clusters" in note for note in table["notes"])
    drift = run_command("drift", a, b, *flag, "--format", "json", "--tolerance", "0.9")
    assert "anatomy_calibration: tested as 200 docs of 20 clusters" in json.loads(drift.stdout)["notes"]
    said = run_command("recalibrate", a, *flag, "--by", "task").stdout
    assert "temperature: 300 docs of 20 clusters in 5 folds" in said
    assert "| 200 of 20 clusters |" in run_command("confidences", a, *flag).stdout.replace("  ", " ")
    run_command("evidence", a, *flag, "--output", tmp_path / "e")
    content = json.loads((tmp_path / "e.json").read_text())["content"]
    assert [task["clusters"] for task in content["measured_on"]] == [20, 20]
    assert any("20 clusters, each drawn whole" in limit for limit in content["limits"])
    assert run_command("export", a, *flag, "--format", "csv").exit_code == 0


def test_a_calibration_split_that_shares_clusters_is_told(folders: tuple[Path, Path]) -> None:
    done = run_command("recalibrate", folders[0], "--cluster", "doc.passage", "--fit_on", "task=law_calibration")
    assert "note: 20 clusters have docs in both splits" in done.stderr


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("passage", "--cluster passage is no field of the docs such as doc.passage_id"),
        ("doc.page", "--cluster doc.page: doc 0 of anatomy_calibration in "),
        ("doc.page", "has no 'page', it has question, passage"),
    ],
)
def test_bad_flags_are_named(folders: tuple[Path, Path], cluster: str, message: str) -> None:
    done = run_command("report", folders[0], "--cluster", cluster)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


def test_redacted_docs_have_no_fields(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (path,) = folder.glob("samples_*")
    lines = [{**json.loads(line), "doc": None} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(UserError, match="was redacted, its docs have no fields"):
        load_run(folder, cluster="doc.passage")


def _written(path: Path, *arguments: object) -> str:
    done = run_command(*arguments, "--output", path)
    assert done.exit_code == 0, done.stderr
    return path.read_text()
