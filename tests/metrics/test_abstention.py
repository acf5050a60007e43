"""What published suites make of "I don't know"."""

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import precision_score, recall_score

from lm_eval_calibration.metrics import abstention
from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.tasks.confidences.abstention import ABSTENTION


def test_definitions() -> None:
    rng = np.random.default_rng(0)
    correct, abstained = rng.integers(0, 2, (2, 200))
    c, a = int(correct.sum()), int(((1 - correct) * abstained).sum())
    i = 200 - c - a
    assert abstention.omniscience_index(correct, abstained) == pytest.approx(100 * (c - i) / (c + i + a), abs=1e-12)
    assert abstention.hallucination_rate(correct, abstained) == pytest.approx(i / (i + a), abs=1e-12)
    should = rng.integers(0, 2, 200)
    assert abstention.abstention_recall(abstained, should) == pytest.approx(recall_score(should, abstained), abs=1e-12)
    found = abstention.abstention_precision(abstained, should)
    assert found == pytest.approx(precision_score(should, abstained), abs=1e-12)


def test_undefined() -> None:
    for function, arrays in (
        (abstention.hallucination_rate, ([1, 1], [0, 0])),
        (abstention.abstention_recall, ([1, 0], [0, 0])),
        (abstention.abstention_precision, ([0, 0], [1, 0])),
    ):
        with pytest.warns(UndefinedMetricWarning, match=f"{function.__name__} is undefined"):
            assert np.isnan(function(*arrays))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="2"):
        abstention.omniscience_index([1, 2], [0, 0])
    with pytest.raises(ValueError, match=r"0\.5"):
        abstention.abstention_recall([0, 0.5], [0, 1])


def test_the_rows_are_means_of_what_docs_add() -> None:
    """Five choices, the last of which is "I don't know" and right for some docs."""
    rng, records = np.random.default_rng(1), []
    for i in range(300):
        gold = int(rng.choice(5, p=[0.2, 0.2, 0.2, 0.2, 0.2]))
        logits = rng.normal(0, 1, 5) + 1.5 * (np.arange(5) == gold)
        fields = {"task": "t", "doc_id": i, "doc_hash": f"{i}", "prompt_hash": "p", "certificate": {}}
        records.append(ChoicesRecord(**fields, log_likelihoods=tuple(logits.tolist()), gold=gold, abstention=4))
    added = [ABSTENTION.means_of(record, None) for record in records]

    def mean(name: str) -> float:
        return float(np.mean([one[name] for one in added if name in one]))

    correct, abstained, should = (
        np.array([of(r) for r in records], dtype=int)
        for of in (lambda r: r.correct, lambda r: r.answer == 4, lambda r: r.gold == 4)
    )
    assert mean("omniscience_index") == pytest.approx(abstention.omniscience_index(correct, abstained))
    assert mean("hallucination_rate") == pytest.approx(abstention.hallucination_rate(correct, abstained))
    assert mean("abstention_rate") == pytest.approx(abstained.mean())
    assert mean("abstention_recall") == pytest.approx(abstention.abstention_recall(abstained, should))
    assert mean("abstention_precision") == pytest.approx(abstention.abstention_precision(abstained, should))
