"""The real SmolLM2-135M on real benchmark docs, through the stock command and in process."""

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import run_tasks

from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.records import RECORD_KEY, read_records

pytestmark = [pytest.mark.slow, pytest.mark.real_model, pytest.mark.real_data]

LIMIT = 8


@pytest.fixture(scope="module")
def command_output(
    hub: Path, smollm2_args: dict[str, str], python: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The stock command with our directory as its include path, one subject beside its stock task."""
    output = tmp_path_factory.mktemp("out")
    arguments = ",".join(f"{key}={value}" for key, value in smollm2_args.items())
    command = [
        *(*python, "-m", "lm_eval", "run", "--include_path", str(task_configs()), "--model", "hf"),
        *("--model_args", arguments, "--device", "cpu", "--tasks", "mmlu_anatomy_calibration,mmlu_anatomy"),
        *("--limit", str(LIMIT), "--log_samples", "--output_path", str(output)),
    ]
    done = subprocess.run(command, check=False, cwd=hub, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    (output / "stdout").write_text(done.stdout, encoding="utf-8")
    return output


@pytest.fixture(scope="module")
def command_results(command_output: Path) -> dict[str, Any]:
    (file,) = command_output.rglob("results_*.json")
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_stock_command_prints_all_six_beside_the_stock_task(command_output: Path) -> None:
    table = (command_output / "stdout").read_text(encoding="utf-8")
    for name in ("acc", *CORE):
        assert f"|{name}" in table
    assert "|anatomy " in table
    assert "|mmlu_anatomy_calibration|" in table


def test_accuracy_equals_stock_doc_by_doc(command_output: Path, command_results: dict[str, Any]) -> None:
    results = command_results["results"]
    assert results["mmlu_anatomy_calibration"]["acc,none"] == results["mmlu_anatomy"]["acc,none"]
    (ours,) = command_output.rglob("samples_mmlu_anatomy_calibration_*.jsonl")
    (stock,) = command_output.rglob("samples_mmlu_anatomy_2*.jsonl")
    for a, b in zip(stock.read_text().splitlines(), ours.read_text().splitlines(), strict=True):
        theirs, mine = json.loads(a), json.loads(b)
        assert (theirs["doc_id"], theirs["acc"]) == (mine["doc_id"], mine["acc"])
        logls = [[float(answer[0][0]) for answer in line["resps"]] for line in (theirs, mine)]
        np.testing.assert_allclose(logls[1], logls[0], atol=1e-4)  # the subject's first line is computed once


def raw_distributions(lm: Any, samples: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Full-vocabulary float64 distributions at the answer's position, gold token and choice probabilities."""
    import torch

    distributions, tokens, choices = [], [], []
    for sample in samples:
        arguments = [sample["arguments"][f"gen_args_{i}"] for i in range(4)]
        context, _ = lm._encode_pair(arguments[0]["arg_0"], arguments[0]["arg_1"])
        letters = [lm._encode_pair(a["arg_0"], a["arg_1"])[1] for a in arguments]
        assert {len(letter) for letter in letters} == {1}
        with torch.no_grad():
            logits = lm.model(torch.tensor([context])).logits[0, -1].double().numpy()
        p = np.exp(logits - logits.max())
        distributions.append(p / p.sum())
        tokens.append(letters[sample["doc"]["answer"]][0])
        mine = p[[letter[0] for letter in letters]]
        choices.append(mine / mine.sum())
    return np.array(distributions), np.array(tokens), np.array(choices)


def test_metrics_equal_a_plain_computation_from_raw_logits(
    command_output: Path, command_results: dict[str, Any], smollm2_lm: Any
) -> None:
    (file,) = command_output.rglob("samples_mmlu_anatomy_calibration_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    p, y, choices = raw_distributions(smollm2_lm, samples)
    gold = np.array([sample["doc"]["answer"] for sample in samples])
    confidence, correct = choices.max(1), choices.argmax(1) == gold
    one_hot = np.eye(4)[gold]

    def gap(forecasts: np.ndarray, hits: np.ndarray) -> float:
        edges = np.arange(11) / 10
        inside = [(forecasts >= low) & ((forecasts < high) | (high == 1)) for low, high in itertools.pairwise(edges)]
        return sum(abs((hits - forecasts)[mask].sum()) for mask in inside)

    hits = np.zeros_like(p)
    hits[np.arange(len(y)), y] = 1
    ranges = [np.array_split(np.argsort(choices[:, k], kind="stable"), 10) for k in range(4)]
    expected = {
        "acc": correct.mean(),
        "brier_score": ((choices - one_hot) ** 2).sum(1).mean(),
        "ece": gap(confidence, correct) / len(y),
        "full_ece": gap(p, hits) / len(y),
        "ace": np.mean(
            [
                np.mean([abs((one_hot - choices)[r, k].mean()) for r in ranges[k] if len(r)])
                for k in range(4)
            ]
        ),
        "auroc": np.mean([(c > d) + 0.5 * (c == d) for c in confidence[correct] for d in confidence[~correct]]),
    }  # fmt: skip
    found = command_results["results"]["mmlu_anatomy_calibration"]
    for name, value in expected.items():
        assert found[f"{name},none"] == pytest.approx(value, abs=1e-4, nan_ok=True), name


def test_the_command_s_samples_hold_the_record(command_output: Path) -> None:
    (file,) = command_output.rglob("samples_mmlu_anatomy_calibration_*.jsonl")
    records = list(read_records(file))
    assert [record.doc_id for record in records] == list(range(LIMIT))
    assert {record.vocab_size for record in records} == {49152}
    assert {record.certificate["dtype"] for record in records} == {"float32"}
    line = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert len(json.dumps(line[RECORD_KEY])) < 2000


@pytest.mark.parametrize(
    "options",
    [
        {"num_fewshot": 5},
        {"apply_chat_template": True, "fewshot_as_multiturn": False},
        {"apply_chat_template": True, "fewshot_as_multiturn": True, "num_fewshot": 2},
    ],
    ids=["5 shots", "chat", "chat, 2 shots as turns"],
)
def test_stock_and_ours_agree_however_they_are_prompted(
    options: dict[str, Any], hub: Path, smollm2_lm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval_calibration.harness.stock import stock_config
    from lm_eval_calibration.tasks import CalibratedTask

    monkeypatch.chdir(hub)
    names = {"stock_task": "mmlu_virology", "task": "mmlu_virology_calibration"}
    from lm_eval.api.task import ConfigurableTask

    stock = ConfigurableTask(config=stock_config("mmlu_virology"))
    results = run_tasks(smollm2_lm, [stock, CalibratedTask(names)], limit=4, **options)
    assert (
        results["results"]["mmlu_virology_calibration"]["acc,none"] == results["results"]["mmlu_virology"]["acc,none"]
    )
    for a, b in zip(results["samples"]["mmlu_virology"], results["samples"][names["task"]], strict=True):
        assert a["arguments"] == b["arguments"]
        for (theirs,), (ours,) in zip(a["resps"], b["resps"], strict=True):
            tolerance = 1e-4 if ours.certificate["shared_prefixes"] else 1e-5
            assert ours[0] == pytest.approx(theirs[0], abs=tolerance)
