"""What is said in words of calibrated models is seldom false; of one that is overconfident it is said."""

import warnings

import numpy as np
import pytest
from simulations import regimes, wrong_words
from simulations.cross_fitting import temperature_2

pytestmark = pytest.mark.slow

REGIMES = 10


def said_of(sample, rng, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(wrong_words.false_words(sample, rng, folder))


def test_false_words_are_rare(tmp_path):
    """Of 10 regimes each may say something false in 4: at 5% that is once in 1,000 runs."""
    said = []
    for i in range(REGIMES):
        rng = np.random.default_rng([11, i])
        regime = regimes.draw_regime(rng, n_min=50, n_max=200)._replace(shape="calibrated")
        said.append(said_of(regimes.draw_sample(rng, regime), rng, tmp_path / str(i)))
    counts = {name: sum(found.get(name, False) for found in said) for name in said[0]}
    assert {"demo", "report: any", "drift", "compare: ece"} <= set(counts)
    assert max(count for name, count in counts.items() if name != "recalibrate: worse") <= 4, counts


def test_the_same_words_are_said_of_an_overconfident_model(tmp_path):
    rng = np.random.default_rng(0)
    said = said_of(temperature_2(rng, 400), rng, tmp_path)
    assert said["demo"]
    assert said["report: gap"]
    assert said["report: recalibration"]
    assert said["recalibrate: better"]
