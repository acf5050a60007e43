"""Regimes drawn at random, few and small: the space is what it says, and intervals hold the truth in them."""

import numpy as np
import pytest
from simulations import random_regimes, regimes
from simulations.truth import true_values

from lm_eval_calibration import metrics

pytestmark = pytest.mark.slow

DRAWS = 60
MEANS = ("acc", "overconfidence", "brier_top_label", "confident_error_rate")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clustered", [False, True])
def test_the_metrics_of_many_docs_are_near_the_truth(seed, clustered):
    rng = np.random.default_rng(seed)
    regime = regimes.draw_regime(rng, n_min=20, n_max=2000, clustered=clustered)
    truth = true_values(regimes.draw_docs(rng, regime, 100_000))
    sample = regimes.draw_sample(rng, regime, 100_000)
    for name in ("acc", "ece", "overconfidence", "brier_top_label"):
        value = metrics.COMPARED[name].value(sample.docs.confidence[0], sample.correct[0])
        assert value == pytest.approx(truth[name], abs=0.05 if clustered else 0.015), (name, regime)


def regime_of(**changed):
    """Calibrated and near 1, of 60 docs, unless said otherwise."""
    base = regimes.draw_regime(np.random.default_rng(0), n_min=20, n_max=2000)
    near_1 = base._replace(law="near 1", shape="calibrated", n_docs=60, n_choices=4, sharpness=1.2, noise=0.3)
    return near_1._replace(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"n_docs": 20, "law": "words"},
        {"shape": "logistic", "accuracy": (-0.5, 1.0, 0.1, 1.0)},
        {"law": "near 0"},
    ],
    ids=str,
)
def test_intervals_hold_the_truth_where_outcomes_are_rare(changed):
    """Of 60 draws 53 are 3 standard errors below 95%; t intervals held it in 35 near 1."""
    rows = random_regimes.simulate(regime_of(**changed), draws=DRAWS, seed=1, only=MEANS)
    shown = {row.metric: row.coverage for row in rows if row.metric in MEANS and not np.isnan(row.coverage)}
    assert len(shown) >= 3
    assert min(shown.values()) >= 53 / DRAWS, shown


def test_intervals_hold_the_truth_where_docs_come_in_clusters():
    regime = regime_of(law="spread", n_docs=300, n_clusters=30, icc=0.4, equal_clusters=False)
    rows = random_regimes.simulate(regime, draws=DRAWS, seed=1, only=("acc", "overconfidence", "brier_top_label"))
    shown = {row.metric: row.coverage for row in rows if "null" not in row.metric}
    assert min(shown.values()) >= 53 / DRAWS, shown


def test_the_picture_has_every_metric(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [random_regimes.Row("words", name, 0.9, 0.1, 1.0) for name in ("ece", "acc", "null of ece")]
    random_regimes.draw_picture(rows, tmp_path / "coverage.svg")
    text = (tmp_path / "coverage.svg").read_text(encoding="utf-8")
    assert "ece -->" in text
    assert "acc -->" in text
    assert "null" not in text


def test_the_command_prints_a_table_and_the_worst(capsys):
    rows = [random_regimes.Row("words", "ece", 0.9, 0.1, 1.0), random_regimes.Row("votes", "ece", 1.0, 0.3, 0.5)]
    random_regimes.print_table(rows)
    random_regimes.print_worst(rows, 1)
    out = capsys.readouterr().out
    assert "| ece | 95.0 | 50.0 | 100.0 | 90.0 | 0.2000 | 25.0 |" in out
    assert "90.0%  ece: words" in out
    assert "votes" not in out
