"""The promised error rate is exceeded in at most 5% of the samples, in every regime; ``decisions.py`` draws more."""

import pytest
from simulations.decisions import REGIMES, Regime, allowed, keeps

DRAWS = 300


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_promise_is_kept(regime: Regime) -> None:
    kept = keeps(regime, DRAWS, seed=99)
    assert kept.broken <= allowed(DRAWS)
    assert kept.coverage <= kept.possible + kept.broken + 0.02
