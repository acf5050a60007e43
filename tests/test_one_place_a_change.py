"""One place a change: what a contributor adds is defined in this file alone, and works wherever it is chosen."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.group import Group
from lm_eval.api.model import LM
from logged_runs import write_run
from scripted import Scripted
from tiny import make_config, make_rows, run_tasks
from typer.testing import CliRunner

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, SCORING_REQUEST_TYPE, register
from lm_eval_calibration.backends.answer_types import GeneratedText, TokenScores
from lm_eval_calibration.cli import app
from lm_eval_calibration.metrics.registry import define, temporarily
from lm_eval_calibration.records import Record, StatedConfidence, metric_arrays
from lm_eval_calibration.results import forms
from lm_eval_calibration.results.forms import registry as form_registry
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.confidences import registry
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation, FollowUpElicitation, Request
from lm_eval_calibration.tasks.confidences.follow_up import ONE_LINE, FollowUp
from lm_eval_calibration.tasks.confidences.option import flag
from lm_eval_calibration.tasks.confidences.source import StatedSource

# --- A backend: its class (the harness's, or somebody's own) and the functions that answer for it.


P = 0.75


class Dice(LM):
    """Every character is a token of probability P, beside one other; it writes "= 1"."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(len(r.args[1]) * np.log(P), False) for r in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return ["= 1" for _ in requests]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


class LoadedDice(Dice):
    """Scores in a way of its own."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(-1.0, False) for _ in requests]


@register(f"{__name__}.Dice", request_type=SCORING_REQUEST_TYPE, stock_methods=["loglikelihood"])
def score(lm: Any, requests: Sequence[Any], deliver: Any) -> None:
    for i, (pair, request) in enumerate(zip(lm.loglikelihood(requests), requests, strict=True)):
        n_tokens = len(request.args[1])
        large = (np.array([P, 1 - P]),) * n_tokens
        deliver(i, TokenScores(pair, log_probs=np.log(np.full(n_tokens, P)), large_probs=large, vocab_size=2))


@register(f"{__name__}.Dice", request_type=GENERATION_REQUEST_TYPE)
def generate(lm: Any, requests: Sequence[Any], deliver: Any) -> None:
    for i, text in enumerate(lm.generate_until(requests)):
        certificate = {"token_probabilities": "exact"}
        deliver(i, GeneratedText(text, token_log_probs=np.log(np.full(len(text), P)), certificate=certificate))


SUMS = {
    "doc_to_choice": None,
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "= {{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match"}],
}


def test_a_backend_in_one_file_gives_distributions_and_confidence(harness_log: pytest.LogCaptureFixture) -> None:
    tasks = [
        CalibratedTask(make_config(make_rows(6))),
        CalibratedTask(make_config(make_rows(6), task="sums_calibration", **SUMS)),
    ]
    results = run_tasks(Dice(), tasks)["results"]
    assert results["letters_calibration"]["full_ece,none"] == pytest.approx(2 * (1 - P))
    assert results["sums_calibration"]["exact_match,none"] == results["sums_calibration"]["acc,none"]
    accuracy = results["sums_calibration"]["acc,none"]
    assert results["sums_calibration"]["ece,none"] == pytest.approx(abs(accuracy - P))  # the mean over its tokens
    assert "Dice gives no" not in harness_log.text


def test_a_subclass_that_changes_what_a_backend_relies_on_is_left_to_the_fallback(
    harness_log: pytest.LogCaptureFixture,
) -> None:
    found = run_tasks(LoadedDice(), [CalibratedTask(make_config(make_rows(4)))])["results"]["letters_calibration"]
    assert "full_ece,none" not in found
    assert "LoadedDice gives no token distributions (it has a loglikelihood of its own)" in harness_log.text


# --- A source of confidence---------------------------------------------


class HighLow(StatedSource):
    """The model says "high" or "low" when it is asked how sure it is."""

    name = "high_low"
    option = flag("high_low")
    report_name = "high or low"
    left_out_message = "{n} of {total} replies are neither high nor low ({docs})"

    def start(self, task: Any, lm: Any, chat_template: Any) -> "HighLowQuestion":
        return HighLowQuestion(task, chat_template)


class HighLowQuestion(FollowUpElicitation):
    def __init__(self, task: Any, chat_template: Any) -> None:
        super().__init__("high_low", "high_low")
        self.follow_up = FollowUp("\nHow sure are you, high or low?", chat_template, task.calibration.where)

    def about(self, context: Any, answer: str) -> list[Request]:
        return [(GENERATION_REQUEST_TYPE, (self.follow_up.prompt(context, answer), ONE_LINE))]

    def read(self, replies: Sequence[Any]) -> StatedConfidence:
        return StatedConfidence("high_low", {"high": 0.9, "low": 0.2}.get(str(replies[0])))


class FirstToken(StatedSource):
    """The probability of an answer's first token: no request is added."""

    name = "first_token"
    tables = ("generation",)
    option = flag("first_token")

    def start(self, task: Any, lm: Any, chat_template: Any) -> "FirstTokenReading":
        return FirstTokenReading("first_token", None)


class FirstTokenReading(Elicitation):
    def confidence_of(self, text: Any, answer: Any, replies: Sequence[Any]) -> StatedConfidence:
        return StatedConfidence(answer, float(np.exp(text.token_log_probs[0])))


# --- Where it appears-----------------------------------------------------------------------------------------------

N_DOCS = 12


def answers(prompt: str, asked: int) -> str:
    """Its answer is the question's first letter; of answers with a vowel it is sure, and of those with z it is mute."""
    if not prompt.endswith("high or low?"):
        return prompt.removeprefix("Which letter comes after ")[0]
    answer = prompt.partition("\nHow sure")[0].rstrip()[-1]
    return "" if answer == "z" else "high" if answer in "aeiou" else "low"


def config(table: str, **options: Any) -> dict[str, Any]:
    options = {"metadata": {"calibration": options}}
    if table == "choices":
        return make_config(make_rows(N_DOCS), **options)
    generated = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{choices[answer][0]}}"}
    exact = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    return make_config(make_rows(N_DOCS), **generated, metric_list=exact, **options)


@pytest.fixture(scope="module", params=["choices", "generation"])
def run(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with registry.temporarily(HighLow()):
        lm = Scripted(answers, lambda character: 0.1 + ord(character) % 7 / 10)
        yield run_tasks(lm, [CalibratedTask(config(request.param, high_low=True, intervals=True))], bootstrap_iters=10)


def test_a_confidence_source_checks_its_option() -> None:
    with registry.temporarily(HighLow()), pytest.raises(TaskError, match="high_low is 'yes', not true or false"):
        CalibratedTask(make_config(make_rows(4), metadata={"calibration": {"high_low": "yes"}}))
    with pytest.raises(TaskError, match="no option 'high_low'"):
        CalibratedTask(make_config(make_rows(4), metadata={"calibration": {"high_low": True}}))


def test_a_confidence_source_is_in_record_and_table_with_its_error(run: dict[str, Any]) -> None:
    lines = run["samples"]["letters_calibration"]
    records = [Record.from_dict(json.loads(json.dumps(line["calibration"]))) for line in lines]
    assert [line["calibration"]["stated"]["high_low"]["query"] for line in lines] == ["high_low"] * N_DOCS
    pairs = [(record.stated["high_low"].confidence, record.correct) for record in records]
    confidence, correct = zip(*[pair for pair in pairs if pair[0] is not None], strict=True)
    assert {0.9, 0.2} <= set(confidence)
    row = run["results"]["letters_calibration"]
    for name in ("brier_top_label", "ece", "auroc"):
        metric = metrics.GENERATION_CATALOG[name]
        assert row[f"{name}_high_low,none"] == pytest.approx(metric.value(confidence, correct), abs=1e-12)
        assert row[f"{name}_high_low_stderr,none"] == pytest.approx(metric.stderr(confidence, correct), abs=1e-12)
        assert row[f"{name}_high_low_low,none"] == pytest.approx(metric.interval(confidence, correct)[0], abs=1e-12)
    assert "ece,none" in row


def test_a_confidence_source_is_in_the_table_of_confidences(run: dict[str, Any], tmp_path: Path) -> None:
    folder = write_run(tmp_path, run["samples"])
    shown = CliRunner().invoke(app, ["confidences", str(folder), "--format", "json"], catch_exceptions=False)
    kinds = json.loads(shown.stdout)["tasks"]["letters_calibration"]["confidences"]
    assert "high or low" in [kind["kind"] for kind in kinds]


# --- A metric: its formula, and what every metric has beside it -------

METRIC_ROWS = ["mean_deviation", *(f"mean_deviation_{row}" for row in ("stderr", "low", "high", "null", "p"))]
METRIC_OPTIONS = {"calibration": {"metrics": ["mean_deviation"], "intervals": True, "nulls": True}}


def mean_deviation(confidence: Any, correct: Any) -> float:
    """Mean of |correct - confidence|."""
    return float(np.mean(np.abs(np.asarray(correct) - np.asarray(confidence))))


@pytest.fixture
def metric() -> Iterator[metrics.Metric]:
    with temporarily(define(mean_deviation, "top_label", higher_is_better=False)) as defined:
        yield defined


def check_rows(results: dict[str, Any], name: str, tasks: Sequence[str], metric: metrics.Metric) -> None:
    """Check that a task or group shows the metric of its docs with error, interval and null."""
    records = [Record.from_dict(line["calibration"]) for task in tasks for line in results["samples"][task]]
    arrays = metric_arrays(records, "top_label", 10)
    assert metric.null is not None
    _, mean, _, p_value = metric.null(*arrays)
    expected = [metric.value(*arrays), metric.stderr(*arrays), *metric.interval(*arrays), mean, p_value]
    assert [results["results"][name][f"{row},none"] for row in METRIC_ROWS] == pytest.approx(expected, abs=1e-12)
    assert results["higher_is_better"][name]["mean_deviation"] is False


def test_a_metric_has_its_rows_in_tables_of_choices_answers_and_groups(metric: metrics.Metric) -> None:
    listed = [{"metric": name, "weight_by_size": True} for name in ("acc", *metrics.CORE)]
    group = Group.from_config({"group": "both", "aggregate_metric_list": listed})
    for name, rows in {"one": make_rows(20)[:8], "two": make_rows(20)[8:]}.items():
        group.add(CalibratedTask(make_config(rows, task=name, metadata=METRIC_OPTIONS)))
    written = CalibratedTask(make_config(make_rows(8), task="sums", metadata=METRIC_OPTIONS, **SUMS))
    results = run_tasks(Dice(), [group, written], bootstrap_iters=10)
    check_rows(results, "one", ["one"], metric)
    check_rows(results, "both", ["one", "two"], metric)
    check_rows(results, "sums", ["sums"], metric)


def test_a_metric_that_is_not_defined_is_refused() -> None:
    with pytest.raises(TaskError, match="mean_deviation"):
        CalibratedTask(make_config(make_rows(5), metadata=METRIC_OPTIONS))


def test_a_confidence_source_that_reads_the_answer_adds_no_request() -> None:
    lm = Scripted(answers, lambda character: 0.1 + ord(character) % 7 / 10)
    with registry.temporarily(FirstToken()):
        results = run_tasks(lm, [CalibratedTask(config("generation", first_token=True))])
    records = [Record.from_dict(line["calibration"]) for line in results["samples"]["letters_calibration"]]
    assert len(lm.asked) == N_DOCS
    assert {record.stated["first_token"].query for record in records} == set("abcdefghijkl")
    pairs = [(record.stated["first_token"].confidence, record.correct) for record in records]
    ece = metrics.ece(*zip(*pairs, strict=True))
    assert results["results"]["letters_calibration"]["ece_first_token,none"] == pytest.approx(ece, abs=1e-12)


# --- A form of other people's files: one module in results/forms -------

FORM_MODULE = """
import json
from lm_eval_calibration.results.forms.form import About, Form

class Answers(Form):
    name = "a file of answers"

    def is_mine(self, path, head):
        return head.startswith(b'{"answers":')

    def about(self, path):
        return About(json.loads(path.read_text())["model"], ["quiz"])

    def samples(self, path, task):
        for row, (question, p, right) in enumerate(json.loads(path.read_text())["answers"]):
            yield self.sample(task, row, question, {"confidence": p, "correct": right}, {"doc": {"question": question}})

FORM = Answers()
"""


def test_a_form_is_one_module_that_every_command_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "answers.py").write_text(FORM_MODULE)
    monkeypatch.setattr(forms, "__path__", [*forms.__path__, str(tmp_path / "modules")])
    form_registry.forms.cache_clear()
    try:
        rng = np.random.default_rng(1)
        for model in ("one", "two"):
            answers = [[f"Why {i}?", float(p), int(rng.random() < p)] for i, p in enumerate(rng.random(80))]
            (tmp_path / f"{model}.json").write_text(json.dumps({"answers": answers, "model": model}))
        paths = [str(tmp_path / f"{model}.json") for model in ("one", "two")]
        calls = [["compare", *paths], ["runs", *paths], ["decide", paths[0]]]
        calls += [["recalibrate", paths[0], "--method", "platt"]]
        calls += [["report", paths[0], "--output", str(tmp_path / "report.md")]]
        for call in calls:
            shown = CliRunner().invoke(app, call)
            assert shown.exit_code == 0, shown.output
        assert "80" in (tmp_path / "report.md").read_text()
    finally:
        form_registry.forms.cache_clear()
