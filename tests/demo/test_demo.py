import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lm_eval_calibration import demo, metrics
from lm_eval_calibration.demo.quiz import PARTS
from lm_eval_calibration.demo.words import explain, reliability_diagram
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Record, metric_arrays
from lm_eval_calibration.reports.sentences import confidence_sentence, ranking_sentence


def questions(part: str) -> list[dict[str, Any]]:
    text = (files("lm_eval_calibration.demo") / "quiz" / f"{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("part", PARTS)
def test_the_quiz_is_well_formed(part: str) -> None:
    rows = questions(part)
    assert len(rows) >= 60
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"question", "choices", "answer"}
        assert len(set(row["choices"])) == 4
        assert row["answer"] in range(4)
    positions = np.bincount([row["answer"] for row in rows])
    assert positions.min() > len(rows) / 4 - 4


def make_records(confidence: list[float], correct: list[int]) -> list[Record]:
    return [
        ChoicesRecord(
            task="t",
            doc_id=i,
            doc_hash="",
            prompt_hash="",
            log_likelihoods=(np.log(c), np.log(1 - c)),
            gold=0 if h else 1,
        )
        for i, (c, h) in enumerate(zip(confidence, correct, strict=True))
    ]


def test_plain_words() -> None:
    half = [1] * 50 + [0] * 50
    over = "says 90% on average, is right 50% of the time: overconfident by 40 points (± 10)."
    assert confidence_sentence([0.9] * 100, half) == over
    assert "underconfident by 40 points" in confidence_sentence([0.6] * 100, [1] * 100)
    assert "no clear over- or underconfidence in 10 questions" in confidence_sentence([0.6] * 10, [1] * 6 + [0] * 4)
    assert "no clear over- or underconfidence in 1 questions" in confidence_sentence([0.6], [1])
    assert "75% of the time" in ranking_sentence([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert "is undefined" in ranking_sentence([0.9, 0.8], [1, 1])


def test_the_diagram_has_a_row_for_each_bin_with_docs() -> None:
    console = Console(width=80, record=True)
    console.print(reliability_diagram(np.array([0.55, 0.57, 1.0]), np.array([1, 0, 1])))
    lines = console.export_text().splitlines()
    assert len(lines) == 3
    assert lines[1].split()[0] == "50%-60%"
    assert lines[1].count("█") == 20
    assert lines[1].split()[-1] == "2"
    assert lines[2].split()[0] == "90%-100%"
    assert lines[2].count("█") == 39  # the mark of the mean confidence takes the last place


@pytest.mark.slow
@pytest.mark.real_model
def test_the_demo_for_real(smollm2_args: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    results = demo.run(limit=3, model=smollm2_args["pretrained"])
    said, told = capsys.readouterr()
    before_the_table = told.split("Next: ")[0] + said.split("|")[0]
    assert len(before_the_table.splitlines()) <= 3
    assert "Next: your own questions: lm-eval-calibration run --csv" in told
    for name in ("acc", *metrics.CORE):
        assert f"|{name}" in said
    assert "All tasks: says" in said
    records = [Record.from_dict(sample[RECORD_KEY]) for part in results["samples"].values() for sample in part]
    assert len(records) == 9
    pooled = metrics.ece(*metric_arrays(records, "top_label", 10))
    assert results["results"]["quiz_calibration"]["ece,none"] == pytest.approx(pooled, abs=1e-12)
    explain(results["samples"], Console())
