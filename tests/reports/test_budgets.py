"""The report's section on budgets of thought: its numbers, its picture, and where there is none."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import Scripted
from tiny import run_tasks

from lm_eval_calibration import load_run, metrics
from lm_eval_calibration.records import BudgetedAnswer
from lm_eval_calibration.reports.report.budgets import by_budget
from lm_eval_calibration.reports.report.content import make_report
from lm_eval_calibration.reports.report.formats import to_html, to_json, to_markdown
from lm_eval_calibration.tasks import CalibratedTask

BUDGETS = (0, 16, 64)


class _Records:
    """A run whose records are these."""

    n_bins = 10

    def __init__(self, records: Any) -> None:
        self.records = records


def budgeted(budget: int, i: int) -> BudgetedAnswer:
    """One in five answers is not found; more thought, more confidence, and no more right answers."""
    if i % 5 == 4:
        return BudgetedAnswer(budget, 40, "not_found", 0, None)
    return BudgetedAnswer(budget, 40, "answered", int(i % 2), min(1.0, 0.4 + budget / 128 + i / 1000))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from generation_tasks import make_config

    results = run_tasks(Scripted(lambda prompt, _: prompt[-1]), [CalibratedTask(make_config())], log_samples=True)
    folder = tmp_path_factory.mktemp("budgets")
    lines = results.pop("samples")["sums_calibration"]
    for i, line in enumerate(lines):
        line["calibration"]["budgets"] = BudgetedAnswer.write_all([budgeted(b, i) for b in BUDGETS])
    time = "2026-01-01T00-00-00.000000"
    samples = folder / f"samples_sums_calibration_{time}.jsonl"
    samples.write_text("".join(json.dumps(line, default=str) + "\n" for line in lines), encoding="utf-8")
    (folder / f"results_{time}.json").write_text(json.dumps(results, default=str), encoding="utf-8")
    return load_run(folder)


def test_numbers_by_budget_are_those_of_its_answers(run: Any) -> None:
    rows = by_budget(run)
    assert [row.budget for row in rows] == [*BUDGETS]
    for row in rows:
        answers = [budgeted(row.budget, i) for i in range(12)]
        assert (row.n_docs, row.n_cut, row.n_answered) == (12, 12 if row.budget < 40 else 0, 10)
        assert row.acc.value == pytest.approx(np.mean([a.correct for a in answers]))
        pairs = [(a.confidence, a.correct) for a in answers if a.confidence is not None]
        confidence, correct = (list(column) for column in zip(*pairs, strict=True))
        assert row.confidence == pytest.approx(np.mean(confidence))
        assert row.metrics["ece"].value == pytest.approx(metrics.ece(confidence, correct), abs=1e-12)
        assert row.metrics["auroc"].value == pytest.approx(metrics.auroc(confidence, correct), abs=1e-12)


def test_budgets_where_no_answer_is_found_are_undefined(run: Any) -> None:
    lost = tuple(BudgetedAnswer(0, 3, "not_found", 0, None) for _ in range(1))
    (row,) = by_budget(_Records([replace(record, budgets=lost) for record in run.records]))  # type: ignore[arg-type]
    assert np.isnan(row.confidence)
    assert np.isnan(row.metrics["ece"].value)
    assert row.acc.value == 0


def test_every_form_of_the_report_shows_them(run: Any) -> None:
    report = make_report(run)
    page = to_html(report)
    assert page.count("<h2 id=") == page.count("<section") - page.count("<section>")
    assert '<h2 id="budgets">More thinking</h2>' in page
    assert len(re.findall(r'<circle class="dot clear"', page)) >= len(BUDGETS)
    assert "## More thinking" in to_markdown(report)
    assert [row["budget"] for row in json.loads(to_json(report))["budgets"]] == [*BUDGETS]


def test_a_run_without_budgets_has_no_such_section(run: Any, tmp_path: Path) -> None:
    assert by_budget(_Records([replace(record, budgets=None) for record in run.records])) == ()  # type: ignore[arg-type]
