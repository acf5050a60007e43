"""Prediction sets of generated answers: options in the answer's place, and sampled answers."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import cells
from scipy.special import softmax
from typer.testing import CliRunner

from lm_eval_calibration.cli import app
from lm_eval_calibration.decisions import Wanted, decide
from lm_eval_calibration.decisions.candidates import LOFREE, Candidates, lofree, of_options, of_samples
from lm_eval_calibration.decisions.prediction_sets import quantile
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.records import GenerationRecord
from lm_eval_calibration.records.answer_options import AnswerOptions
from lm_eval_calibration.records.generation import Generation
from lm_eval_calibration.records.samples import Sample


def naive_lofree(counts: list[int], k: int) -> float:
    m = sum(counts)
    shares = [n / m for n in counts]
    entropy = -sum(p * math.log(p) for p in shares) / math.log(m) if m > 1 else 0.0
    return 1 - shares[k] + 0.05 * entropy


@pytest.mark.parametrize("counts", [[10], [1], [7, 2, 1], [1] * 10, [5, 5]])
def test_lofree_is_its_definition(counts: list[int]) -> None:
    found = lofree(np.array(counts, dtype=float))
    assert found == pytest.approx([naive_lofree(counts, k) for k in range(len(counts))], abs=1e-12)


def draw(rng: np.random.Generator, n: int, m: int = 10) -> tuple[list[Any], Any]:
    """Answers that m samples give to n questions, and which is right; a share of the questions has no right sample."""
    counts, right = [], np.full(n, -1)
    for i, ease in enumerate(rng.beta(2, 1, n)):
        answers = np.where(rng.random(m) < ease, 0, rng.integers(1, 6, m))
        names, times = np.unique(answers, return_counts=True)
        counts.append(times.astype(float))
        right[i] = 0 if names[0] == 0 else -1
    return counts, right


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_marginal_coverage_of_samples(alpha: float) -> None:
    """Split conformal: 1 - alpha at least, over samples of calibration docs, where right answers are sampled enough."""
    rng, held, n, draws = np.random.default_rng(0), [], 50, 400
    for _ in range(draws):
        candidates = of_samples(*draw(rng, n + 20))[LOFREE]
        q = quantile(candidates.of_right[:n], alpha)
        new = candidates.take(np.arange(n, n + 20))
        held.append(np.mean(new.of_right <= q) if np.isfinite(q) else 1.0)
    assert np.mean(held) >= 1 - alpha - 2 * np.std(held) / np.sqrt(draws)


def test_where_too_few_samples_are_right_nothing_is_ruled_out_and_coverage_is_known_to_be_impossible() -> None:
    rng = np.random.default_rng(1)
    counts, right = draw(rng, 600)
    right[rng.random(600) < 0.4] = -1
    found = _decide(of_samples(counts, right), 0.1)[LOFREE]
    assert math.isinf(found.q[""])
    assert found.shown.unlimited == 1.0
    assert found.shown.without_right.value > 0.3
    assert found.shown.coverage.value == pytest.approx(1 - found.shown.without_right.value)
    assert found.shown.by_class == {}
    wider = _decide(of_samples(counts, right), 0.6)[LOFREE].shown
    assert wider.unlimited == 0
    assert wider.coverage.low <= 0.4 + 0.1


def _decide(known: Any, alpha: float) -> Any:
    n = len(next(iter(known.values())).right)
    docs = Docs.of_answers(np.full(n, 0.5), np.ones(n), [f"{i}" for i in range(n)])
    return decide(docs, Wanted(alpha), known=known).sets


def test_options_that_some_docs_lack() -> None:
    rng = np.random.default_rng(2)
    probs = [softmax(rng.normal(0, 2, 4)) for _ in range(500)]
    right = np.array([int(rng.choice(4, p=row)) for row in probs])
    probs[3], right[3], right[7] = np.empty(0), -1, -1
    sets = _decide(of_options(probs, right), 0.2)
    assert list(sets) == ["lac", "aps", "raps"]
    shown = sets["lac"].shown
    assert shown.without_right.n <= 2
    assert 0.7 < shown.coverage.value < 0.9
    assert sorted(shown.by_class) == [0, 1, 2, 3]
    assert all(0.5 < one.value <= 1 for one in shown.by_class.values())


def test_arrays_and_vectors_give_the_same() -> None:
    rng = np.random.default_rng(3)
    probs, right = softmax(rng.normal(0, 1, (40, 3)), axis=1), rng.integers(-1, 3, 40)
    one, other = of_options(probs, right)["aps"], of_options(list(probs), right)["aps"]
    assert isinstance(other, Candidates)
    np.testing.assert_array_equal(one.of_right, other.of_right)
    limits = rng.random(40)
    np.testing.assert_array_equal(one.sets(limits), np.stack(other.sets(limits)))


def record(i: int, rng: np.random.Generator, task: str) -> GenerationRecord:
    """A doc with ten samples and three options; the right option and the right answer are the first."""
    logits = rng.normal(0, 2, 3)
    answers = np.where(rng.random(10) < rng.beta(2, 1), 0, rng.integers(1, 4, 10))
    samples = tuple(Sample(f"t{k}", f"a{k}", int(k == 0)) for k in answers.tolist())
    gold = int(rng.choice(3, p=softmax(logits)))
    given = int(np.argmax(logits))
    return GenerationRecord(
        task=task,
        doc_id=i,
        doc_hash=hashlib.sha256(f"{task} {i}".encode()).hexdigest(),
        prompt_hash="p",
        certificate={"backend": "x", "versions": {}},
        generation=Generation("t", "exact_match", "none", int(given == gold), (-0.1, -0.5), samples),
        options=AnswerOptions(tuple((logits - logits.max()).tolist()), given, gold),
    )


def test_the_command_shows_both(tmp_path: Path) -> None:
    rng, task = np.random.default_rng(4), "quiz_calibration"
    lines = [
        {"doc_id": i, "doc": {"q": i}, "doc_hash": "", "filter": "none", "calibration": record(i, rng, task).to_dict()}
        for i in range(400)
    ]
    file = tmp_path / f"samples_{task}_2026-01-31T10-00-00.000001.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    saved = tmp_path / "d.json"
    result = CliRunner().invoke(app, ["decide", str(file), "--error_rate", "0.3", "--output", str(saved)])
    assert result.exit_code == 0, result.output
    rows = [cells(line) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[0] in ("lac", "aps", "raps", "lofree")] == ["lac", "aps", "raps", "lofree"]
    assert "lofree: no sampled answer is right in " in result.stdout
    assert set(json.loads(saved.read_text())["prediction_sets"]) == {"lac", "aps", "raps", "lofree"}
    page = tmp_path / "report.html"
    made = CliRunner().invoke(app, ["report", str(file), "--output", str(page)])
    assert made.exit_code == 0, made.output
    assert "When may it answer alone?" in page.read_text()
    data = CliRunner().invoke(app, ["decide", str(file), "--error_rate", "0.3", "--format", "json"]).stdout
    shown = json.loads(data)["prediction_sets"]["lac"]["shown"]
    assert shown["coverage"]["value"] == pytest.approx(0.7, abs=0.1)
    assert shown["uacc"] is not None
