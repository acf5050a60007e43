"""Other programs' files: lighteval's details, HELM's statistics, logs of inspect_ai, Every Eval Ever."""

import builtins
import gzip
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from scipy.special import log_softmax, softmax

from lm_eval_calibration import load_run, metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results import Selection

N = 60
TIME = "2026-05-04T10-20-30.123456"
LETTERS = ["A", "B", "C", "D"]


class Docs:
    """What a model said of some docs."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        logits = np.random.default_rng(9).normal(0, 2, (N, 4)) + rng.normal(0, 0.5, (N, 4))
        self.logs = log_softmax(logits, axis=1) - 0.3
        self.gold = np.array([np.random.default_rng([5, i]).choice(4, p=softmax(logits[i] / 2)) for i in range(N)])
        self.probs = softmax(self.logs, axis=1)
        self.confidence, self.correct = self.probs.max(axis=1), (self.probs.argmax(axis=1) == self.gold).astype(int)


def write_lighteval(folder: Path, model: str = "org/one", seed: int = 0, **changes: Any) -> Path:
    """As lighteval 0.13 writes details: struct columns doc, metric and model_response."""
    docs = Docs(seed)
    rows = []
    for i in range(N):
        doc = {"query": f"Question {i}", "choices": LETTERS, "gold_index": [int(docs.gold[i])], "specific": None}
        doc |= {"id": str(i), "task_name": "arc", "sampling_methods": ["LOGPROBS"], **changes.get("doc", {})}
        response = {"logprobs": docs.logs[i].tolist(), "text": []} | changes.get("model_response", {})
        metric = {"acc": int(docs.correct[i])} | changes.get("metric", {})
        rows.append({"doc": doc, "metric": metric, "model_response": response})
    path = folder / "details" / model / TIME / f"details_leaderboard|arc:challenge|25_{TIME}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    results = folder / "results" / model / f"results_{TIME}.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"config_general": {"model_name": model}, "results": {}}))
    return path


def stat(name: str, mean: float, split: str = "test") -> dict[str, Any]:
    return {"name": {"name": name, "split": split}, "count": 1, "sum": mean, "mean": mean}


def write_helm(folder: Path, model: str = "org/one", seed: int = 0, trials: int = 1) -> Path:
    """As HELM 0.5 writes a run: each instance also perturbed, and one of another split."""
    docs = Docs(seed)
    name = f"mmlu:subject=anatomy,method=multiple_choice_joint,model={model.replace('/', '_')},data_augmentation=x"
    run = folder / "runs" / "v1" / name
    run.mkdir(parents=True)
    spec = {"name": name, "adapter_spec": {"model": model, "method": "multiple_choice_joint"}}
    (run / "run_spec.json").write_text(json.dumps(spec))
    entries = []
    for i in range(N):
        stats = [stat("max_prob", docs.confidence[i]), stat("exact_match", float(docs.correct[i]))]
        for trial in range(trials):
            entries.append({"instance_id": f"id{i}", "train_trial_index": trial, "stats": stats})
        other = {"name": "robustness", "robustness": True}
        entries.append({"instance_id": f"id{i}", "perturbation": other, "train_trial_index": 0, "stats": stats})
    entries.append({"instance_id": "id999", "stats": [stat("max_prob", 0.5, "valid"), stat("exact_match", 1, "valid")]})
    (run / "per_instance_stats.json").write_text(json.dumps(entries))
    (run / "stats.json").write_text(json.dumps([stat("exact_match", 0.5)]))
    instances = [
        {"id": f"id{i}", "input": {"text": f"Question {i}"}, "split": "test",
         "references": [{"output": {"text": "yes"}, "tags": ["correct"]}, {"output": {"text": "no"}, "tags": []}]}
        for i in range(N)
    ]  # fmt: skip
    (run / "instances.json").write_text(json.dumps(instances))
    shown = [{"instance_id": f"id{i}", "train_trial_index": 0, "predicted_text": " A"} for i in range(N)]
    (run / "display_predictions.json").write_text(json.dumps(shown))
    return run / "per_instance_stats.json"


def write_every_eval_ever(folder: Path, model: str = "org/one", seed: int = 0, kind: str = "choices") -> Path:
    """As Every Eval Ever's lighteval converter writes instances, or with a stated confidence."""
    docs, lines = Docs(seed), []
    for i in range(N):
        said = {"raw": f"Question {i}", "reference": [LETTERS[docs.gold[i]]], "choices": LETTERS}
        told = {"choice_logprobs": json.dumps(docs.logs[i].tolist())}
        if kind == "confidence":
            told = {"confidence": str(docs.confidence[i])}
        line = {"schema_version": "0.3.0", "evaluation_id": "e", "model_id": model, "evaluation_name": "arc"}
        line |= {"sample_id": str(i), "interaction_type": "single_turn", "input": said, "output": {"raw": ["A"]}}
        line |= {"answer_attribution": [], "metadata": told if kind != "none" else {}}
        line["evaluation"] = {"score": float(docs.correct[i]), "is_correct": bool(docs.correct[i])}
        lines.append(line)
    folder.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": "0.3.0", "evaluation_id": "e", "evaluation_results": []}
    (folder / "0a.json").write_text(json.dumps(head))
    path = folder / "0a_samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


WRITERS = {"lighteval": write_lighteval, "helm": write_helm, "every_eval_ever": write_every_eval_ever}
TASKS = {
    "lighteval": "leaderboard|arc:challenge|25",
    "helm": "mmlu:subject=anatomy,method=multiple_choice_joint,data_augmentation=x",
    "every_eval_ever": "arc",
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("is_folder", [True, False])
def test_numbers_are_those_of_the_file(tmp_path: Path, form: str, is_folder: bool) -> None:
    path = WRITERS[form](tmp_path)
    run = load_run(tmp_path if is_folder else path)
    docs = Docs()
    assert run.model == "org/one"
    assert TASKS[form] in run.tasks
    found = run.metrics(TASKS[form], names=("acc", "ece", "auroc", "brier_top_label"))
    assert found["acc"].value == docs.correct.mean()
    for name in ("ece", "auroc", "brier_top_label"):
        assert found[name].value == pytest.approx(getattr(metrics, name)(docs.confidence, docs.correct), abs=1e-12)
    if form != "helm":
        value = run.metrics(TASKS[form], names=("brier_score",))["brier_score"].value
        assert value == pytest.approx(metrics.brier_score(docs.probs, docs.gold), abs=1e-12)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("command", ["report", "decide", "recalibrate", "compare", "runs"])
def test_commands_take_every_form(tmp_path: Path, form: str, command: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    WRITERS[form](tmp_path / "a")
    paths = ["a"]
    options = ["--task", TASKS[form]] if command in ("decide", "recalibrate", "compare") else []
    if command == "compare":
        WRITERS[form](tmp_path / "b", model="org/two", seed=1)
        paths.append("b")
    if command == "recalibrate" and form == "helm":  # confidences without choices
        options += ["--method", "platt"]
    if command == "report":
        options = ["--output", "report.md"]
    result = run_command(command, *paths, *options)
    assert result.exit_code == 0, result.output
    if command == "compare":
        assert "one" in result.output
        assert "two" in result.output
        assert "unpaired" not in result.output


OLD_ROWS = {
    "pairs": lambda logs, gold, acc: {
        "example": "q", "predictions": [[log, 0.0] for log in logs], "gold_index": [gold], "metrics": {"acc": acc}},
    "unconditioned": lambda logs, gold, acc: {
        "example": "q", "predictions": [[log, 0.0] for log in (*logs, *logs)], "gold_index": [gold],
        "metrics": {"acc_norm_pmi": 1}},
    "single tokens": lambda logs, gold, acc: {
        "example": "q", "predictions": list(logs), "gold_index": [gold], "gold": [], "metrics": {"acc": acc}},
    "the leaderboard's": lambda logs, gold, acc: {
        "query": "q", "predictions": list(logs), "gold": gold, "acc": float(acc), "acc_norm": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", OLD_ROWS)
def test_details_of_older_versions(tmp_path: Path, kind: str) -> None:
    """As 0.8 and the first Open LLM Leaderboard wrote them: a column for each field, colons in names."""
    docs, time = Docs(), "2023-07-19T15:58:12.174583"
    rows = [
        {**OLD_ROWS[kind](docs.logs[i].tolist(), int(docs.gold[i]), int(docs.correct[i])), "choices": LETTERS}
        for i in range(N)
    ]
    path = tmp_path / "details_org__one" / time / f"details_harness|arc:challenge|25_{time}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    run = load_run(tmp_path)
    assert (run.model, run.tasks) == ("org/one", ("harness|arc:challenge|25",))
    found = run.metrics(run.tasks[0], names=("acc", "brier_score"))
    assert found["acc"].value == docs.correct.mean()
    assert found["brier_score"].value == pytest.approx(metrics.brier_score(docs.probs, docs.gold), abs=1e-12)


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", f"samples_leaderboard_arc_{TIME}.parquet"])
def test_samples_of_the_harness_that_datasets_exports(tmp_path: Path, name: str) -> None:
    """A struct of requests has those that any doc has, and None for the others."""
    docs = Docs()
    rows = [
        {"doc_id": i, "doc": {"q": f"Question {i}"}, "target": str(docs.gold[i]), "acc": float(docs.correct[i]),
         "arguments": {f"gen_args_{j}": {"arg_0": f"Question {i}", "arg_1": f" {LETTERS[j]}"} for j in range(4)},
         "resps": [[[str(log), "False"]] for log in docs.logs[i]]}
        for i in range(N)
    ]  # fmt: skip
    rows[-1]["arguments"]["gen_args_4"], rows[-1]["acc"] = {"arg_0": "", "arg_1": " E"}, 0.0
    rows[-1]["resps"].append([["-0.001", "True"]])
    (tmp_path / "org__one").mkdir()
    path = tmp_path / "org__one" / name
    pq.write_table(pa.Table.from_pylist(rows), path)
    run = load_run(tmp_path)
    assert run.model == "org__one"
    assert run.samples[3].record.log_likelihoods == tuple(docs.logs[3])
    assert run.metrics(run.tasks[0], names=("acc",))["acc"].value == np.mean([row["acc"] for row in rows])
    rows[2]["acc"] = 1 - rows[2]["acc"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match=r"row \d+: acc is"):
        load_run(path)


@pytest.mark.parametrize("of", [".", "predictions.json", "generations.json", "page.html"])
def test_logs_in_no_known_form_are_told_which_are(tmp_path: Path, of: str) -> None:
    """As BigCode's harness, OpenCompass, promptfoo and simple-evals write theirs."""
    if of != ".":
        (tmp_path / of).write_text('[["def"], ["f"]]' if of[0] == "g" else '{"0": {"prediction": "A", "gold": "B"}}')
    with pytest.raises(UserError, match=r"read are logs of the harness, .*HELM.*lighteval.*table with --columns"):
        load_run(tmp_path / of)


def test_texts_an_old_model_generated_are_no_choices(tmp_path: Path) -> None:
    path = tmp_path / f"details_gsm8k_{TIME}.parquet"
    pq.write_table(pa.table({"example": ["q"], "choices": [["4"]], "predictions": [["four"]], "gold": [["4"]]}), path)
    with pytest.raises(UserError, match="row 1: 0 logprobs of 1 choice: not multiple choice"):
        load_run(path)


def test_a_folder_of_many_models_is_listed_and_chosen_from(tmp_path: Path) -> None:
    for i, (form, write) in enumerate(WRITERS.items()):
        write(tmp_path / form / "x", model="org/one")
        write(tmp_path / form / "y", model="org/two", seed=i)
    listed = json.loads(run_command("runs", str(tmp_path), "--format", "json").stdout)
    assert {(one["model"], one["docs"]) for one in listed} == {
        *(("org/one", n) for n in (N, N + 1)),
        *(("org/two", n) for n in (N, N + 1)),
    }
    run = load_run(tmp_path, select=Selection(model="two", task="arc:challenge"))
    assert (run.model, run.tasks) == ("org/two", (TASKS["lighteval"],))


def test_of_one_folder_runs_that_can_t_be_read_are_left_out(tmp_path: Path) -> None:
    other, broken, _ = (write_helm(tmp_path / str(i), f"org/m{i}", seed=i) for i in range(3))
    broken.write_text(broken.read_text().replace("max_prob", "other"))
    done = run_command("compare", tmp_path, "--metrics", "acc")
    assert done.exit_code == 0, done.output
    assert "note: left out: " in done.stderr
    assert "no 'max_prob' among its statistics" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[2:4]] == ["m0", "m2"]
    assert run_command("compare", broken, other).exit_code == 2  # named, so wanted
    other.write_text(broken.read_text())
    assert "compare needs two runs at least that can be read" in run_command("compare", tmp_path).stderr
    other.write_text("[]")
    assert f"note: left out: {other}: no docs" in run_command("runs", tmp_path).stderr


def test_a_choice_between_other_programs_logs_is_one_of_files(tmp_path: Path) -> None:
    for i in range(2):
        write_helm(tmp_path / str(i), f"org/m{i}", seed=i)
    with pytest.raises(UserError, match=r"holds 2 runs of 2 models: name its file or choose by .*m0 \([^,]*: "):
        load_run(tmp_path)


@pytest.mark.parametrize("form", WRITERS)
def test_nothing_is_written_beside_other_programs_logs(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run_command("export", tmp_path, "--format", "parquet")
    assert "which is read as it is" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_perturbed_instances_and_other_splits_of_helm_are_apart(tmp_path: Path) -> None:
    write_helm(tmp_path, trials=3)
    run = load_run(tmp_path)
    test = run.docs[TASKS["helm"]]
    assert len(test) == 3 * N
    assert run.n_clusters(TASKS["helm"]) == N
    assert len(run.docs[f"{TASKS['helm']},split=valid"]) == 1
    sample = run.samples[0]
    assert sample.line["doc"]["text"] == "Question 0"
    assert sample.line["resps"] == [[" A"]]


@pytest.mark.parametrize("method", ["joint", "separate"])
def test_texts_of_helm_before_it_is_summarized(tmp_path: Path, method: str) -> None:
    """helm-run alone writes scenario_state.json; of separate choices there is a request for each, and no answer."""
    path = write_helm(tmp_path)
    instances = json.loads(path.with_name("instances.json").read_text())
    states = [
        {"instance": one, "train_trial_index": 0, "reference_index": None if method == "joint" else 0,
         "result": {"completions": [{"text": " B", "logprob": -2.0}, {"text": " A", "logprob": -1.0}]}}
        for one in instances
    ]  # fmt: skip
    path.with_name("instances.json").unlink()
    path.with_name("display_predictions.json").unlink()
    path.with_name("scenario_state.json").write_text(json.dumps({"adapter_spec": {}, "request_states": states}))
    sample = load_run(tmp_path).samples[0]
    assert sample.line["doc"]["text"] == "Question 0"
    assert sample.line["target"] == "yes"
    assert sample.line["resps"] == [[" A" if method == "joint" else None]]
    path.with_name("scenario_state.json").write_text(json.dumps({"request_states": [{"instance": 3}]}))
    with pytest.raises(UserError, match=r"scenario_state\.json: .*not as HELM writes it"):
        load_run(path)


@pytest.mark.parametrize(("metric", "is_read"), [("acc_norm", True), ("acc", False), (None, False)])
def test_is_correct_by_another_metric_is_no_contradiction(tmp_path: Path, metric: str | None, is_read: bool) -> None:
    path = write_every_eval_ever(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["evaluation"]["is_correct"] = not lines[0]["evaluation"]["is_correct"]
    for line in lines:
        line["metadata"] |= {"primary_metric": metric} if metric else {}
    packed = path.with_name("0a_samples.jsonl.gz")
    packed.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    path.unlink()
    if is_read:
        assert load_run(tmp_path).metrics("arc", names=("acc",))["acc"].value == Docs().correct.mean()
    else:
        with pytest.raises(UserError, match="by choice_logprobs and reference it is not so"):
            load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": {"acc": 1}}, r"row \d+: acc is 1, but by logprobs and gold_index it is 0"),
        ({"doc": {"gold_index": [0, 1]}}, "several gold answers"),
        ({"doc": {"gold_index": [4]}}, "gold_index is 4, and there are 4 choices"),
        ({"model_response": {"logprobs": []}}, "0 logprobs of 4 choices: not multiple choice"),
        ({"model_response": {"logprobs": [-1.0, math.nan, -1.0, -2.0]}}, "logprobs is nan"),
        ({"model_response": {"logprobs": [-1.0, 2.0, -1.0, -2.0]}, "metric": {"acc": None}}, "none is above 0"),
        ({"doc": {"sampling_methods": ["GENERATIVE"]}}, "not multiple choice"),
    ],
)
def test_details_that_can_t_be_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_lighteval(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        load_run(tmp_path)


def test_details_without_choices_stop_no_gate_and_no_list(tmp_path: Path) -> None:
    for name in "ab":
        path = write_lighteval(tmp_path / name, f"org/{name}")
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["doc"]["sampling_methods"] = ["GENERATIVE"]
        pq.write_table(pa.Table.from_pylist(rows), path.with_name(f"details_gsm|0_{TIME}.parquet"))
    done = run_command("drift", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("gsm|0 is left out: ") == 2
    (listed,) = json.loads(run_command("runs", tmp_path / "a", "--format", "json").stdout)
    assert listed["docs"] == N
    path.write_bytes(path.read_bytes()[:-9])
    assert run_command("drift", tmp_path / "a", tmp_path / "b").exit_code == 2  # that is broken


def test_results_without_docs_say_where_these_are(tmp_path: Path) -> None:
    write_lighteval(tmp_path / "a").unlink()
    with pytest.raises(UserError, match="--save-details"):
        load_run(tmp_path / "a")
    write_every_eval_ever(tmp_path / "b").unlink()
    with pytest.raises(UserError, match=r"0a_samples\.jsonl"):
        load_run(tmp_path / "b" / "0a.json")


def test_details_without_choices_are_named(tmp_path: Path) -> None:
    path = write_lighteval(tmp_path)
    pq.write_table(pa.table({"predictions": ["[]"], "gold_index": ["[0]"]}), path)
    with pytest.raises(UserError, match="no column 'choices': not as lighteval writes details"):
        load_run(path)


@pytest.mark.parametrize(
    ("stats", "said"),
    [
        ([stat("exact_match", 1)], "no 'max_prob' among its statistics; there are exact_match"),
        ([stat("max_prob", 0.4)], "no 'exact_match' among its statistics"),
        ([stat("max_prob", 1.2), stat("exact_match", 1)], "confidence is 1.2, not 0 to 1"),
        ([stat("max_prob", 1), stat("exact_match", 1)], "the model gave no log-probabilities"),
    ],
)
def test_statistics_that_can_t_be_are_named(tmp_path: Path, stats: list[Any], said: str) -> None:
    path = write_helm(tmp_path)
    path.write_text(json.dumps([{"instance_id": "a", "stats": stats}]))
    with pytest.raises(UserError, match=said):
        load_run(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"instance_id": 1}]', "[{", "null", '[{"stats": [{}]}]'])
@pytest.mark.parametrize("form", ["helm", "every_eval_ever"])
def test_broken_files_are_named(tmp_path: Path, form: str, content: str) -> None:
    path = WRITERS[form](tmp_path)
    path.write_text(content)
    with pytest.raises(UserError, match=path.name):
        load_run(path)


def test_every_eval_ever_with_a_stated_confidence_or_none(tmp_path: Path) -> None:
    docs = Docs()
    run = load_run(write_every_eval_ever(tmp_path / "a", kind="confidence"))
    value = run.metrics(names=("ece",))["ece"].value
    assert value == pytest.approx(metrics.ece(docs.confidence, docs.correct), abs=1e-12)
    with pytest.raises(UserError, match="line 1: no confidence: `metadata` has neither"):
        load_run(write_every_eval_ever(tmp_path / "b", kind="none"))


def test_a_doc_that_several_metrics_scored_counts_once(tmp_path: Path) -> None:
    path = write_every_eval_ever(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, *lines]) + "\n")
    assert len(load_run(path)) == N
    other = json.loads(lines[0])
    other["metadata"] = {"confidence": "0.9"}
    other["evaluation"]["is_correct"] = not other["evaluation"]["is_correct"]
    path.write_text("\n".join([*lines, json.dumps(other)]) + "\n")
    with pytest.raises(UserError, match="sample 0 is scored by several metrics, which differ"):
        load_run(path)


# --- inspect_ai ------------------------------------------------------------------------------------------------------


def inspect_log(docs: Docs, kind: str, status: str = "success", scorers: int = 1) -> Any:
    """A log as inspect_ai's reader returns it."""
    samples = []
    for i in range(N):
        logs = [SimpleNamespace(logprob=math.log(docs.confidence[i]) / 2) for _ in range(2)]
        said = SimpleNamespace(logprobs=SimpleNamespace(content=logs) if kind == "tokens" else None)
        output = SimpleNamespace(choices=[said], completion="A")
        told = {"confidence": round(100 * docs.confidence[i])} if kind == "percent" else {}
        score = SimpleNamespace(value="CI"[1 - docs.correct[i]], metadata=told or None)
        scores = {f"scorer{j}": score for j in range(scorers)}
        samples.append(SimpleNamespace(id=i, epoch=1, input=f"Question {i}", choices=LETTERS, target="A", metadata={"ward": i % 2}, output=output, scores=scores))  # noqa: E501  # fmt: skip
    head = SimpleNamespace(created="2026-05-04T10:20:30+00:00", task="letters", model="org/one")
    results = SimpleNamespace(scores=[SimpleNamespace(name=f"scorer{j}") for j in range(scorers)])
    return SimpleNamespace(status=status, eval=head, results=results, samples=samples)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Stands in for inspect_ai: returns the log that a test gives it."""

    def give(log: Any) -> Path:
        module = SimpleNamespace(read_eval_log=lambda path, header_only=False: log)
        monkeypatch.setitem(sys.modules, "inspect_ai", SimpleNamespace(log=module))
        monkeypatch.setitem(sys.modules, "inspect_ai.log", module)
        path = tmp_path / "2026-05-04_letters.eval"
        path.write_bytes(b"PK\x03\x04")
        return path

    return give


def test_inspect_logs_by_tokens_and_by_stated_confidence(reader: Any) -> None:
    docs = Docs()
    run = load_run(reader(inspect_log(docs, "tokens")))
    assert (run.model, run.tasks) == ("org/one", ("letters",))
    assert run.metrics(names=("ece",))["ece"].value == pytest.approx(
        metrics.ece(docs.confidence, docs.correct), abs=1e-12
    )
    run = load_run(reader(inspect_log(docs, "percent")))
    stated = np.round(100 * docs.confidence) / 100
    assert run.metrics(names=("ece",))["ece"].value == pytest.approx(metrics.ece(stated, docs.correct), abs=1e-12)


def test_several_scorers_are_several_tasks(reader: Any) -> None:
    run = load_run(reader(inspect_log(Docs(), "tokens", scorers=2)))
    assert run.tasks == ("letters/scorer0", "letters/scorer1")
    assert len(run.docs["letters/scorer1"]) == N


def test_samples_that_were_not_scored_count_nowhere(reader: Any) -> None:
    docs, log = Docs(), inspect_log(Docs(), "tokens")
    for sample in log.samples[:5]:  # as --no-fail-on-error leaves them
        sample.scores, sample.output = None, None
    log.samples[5].scores["scorer0"] = SimpleNamespace(value="P", metadata=None)
    path = reader(log)
    run = load_run(path)
    assert run.metrics(names=("acc",))["acc"].value == pytest.approx(docs.correct[6:].mean(), abs=1e-12)
    reason = f"{path}: of {N} docs 6 were scored neither right nor wrong"
    assert run.left_out == {"a part of letters": reason}
    assert [sample.line["doc"]["id"] for sample in run.samples][:2] == [6, 7]
    for sample in log.samples:
        sample.scores = None
    with pytest.raises(UserError, match=f"of {N} docs {N} were scored neither right nor wrong"):
        load_run(path)


def test_inspect_logs_that_can_t_be_used_say_why(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no confidence: neither .* --logprobs"):
        load_run(reader(inspect_log(Docs(), "none")))
    with pytest.raises(UserError, match="has not ended well"):
        load_run(reader(inspect_log(Docs(), "tokens", status="error")))
    path, real = reader(None), builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("inspect_ai"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install inspect_ai"):
        load_run(path)


def test_inspect_ai_s_own_reader_says_what_is_broken(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    (tmp_path / "a.eval").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="inspect_ai can't read it"):
        load_run(tmp_path / "a.eval")
