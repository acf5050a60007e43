"""The test of drift: what it says, and how rarely it says it without cause."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from lm_eval_calibration import metrics
from lm_eval_calibration.reports.drift.gate import docs_to_settle, gate
from lm_eval_calibration.results import Difference


def difference(name: str, d: float, half: float, p: float = 0.5, reason: str = "") -> Difference:
    total = (0.2 + d - half, 0.2 + d + half) if name == "overconfidence" else None
    return Difference(name, 0.1, 0.1 + d, d, d - half, d + half, p, p, 1, reason, "", total)


def comparison(*tasks: list[Difference], pooled: list[Difference] | None = None) -> Any:
    def scope(name: str, found: list[Difference]) -> Any:
        return SimpleNamespace(task=name, paired=True, n_a=10, n_b=10, differences={d.name: d for d in found})

    scopes = tuple(scope(f"t{i}", found) for i, found in enumerate(tasks))
    return SimpleNamespace(tasks=scopes, pooled=None if pooled is None else scope("all", pooled), level=0.95)


def test_the_p_value_is_that_of_a_worsening_of_just_the_tolerance() -> None:
    half = 0.01
    (test,) = gate(comparison([difference("ece", 0.05, half)]), {"ece": 0.03})
    assert test.p_value == pytest.approx(norm.sf((0.05 - 0.03) / (half / norm.ppf(0.975))), rel=1e-12)
    assert test.verdict == "drifted"
    (test,) = gate(comparison([difference("ece", 0.05, half)]), {"ece": 0.05})
    assert test.p_value == pytest.approx(0.5)
    (at_the_end,) = gate(comparison([difference("ece", 0.05, half)]), {"ece": 0.04})
    assert at_the_end.p_value == pytest.approx(0.025)  # the 95% interval ends at the tolerance


def test_at_tolerance_0_it_is_half_the_two_sided_p_value() -> None:
    rng = np.random.default_rng(0)
    conf = rng.uniform(0.4, 1, 300)
    a = metrics.Run(confidence=conf, correct=(rng.random(300) < conf).astype(int))
    b = metrics.Run(confidence=np.minimum(1, conf + 0.1), correct=a.correct)
    for name, found in metrics.compare(a, b, names=["ece", "brier_top_label"]).items():
        (test,) = gate(comparison([Difference(name, *found, 1, 1, "")]), {name: 0.0})
        assert 2 * test.p_value == pytest.approx(found.p_value, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "change", "verdict"),
    [
        ("ece", 0.1, "drifted"),
        ("ece", -0.1, "within"),
        ("auroc", 0.1, "within"),
        ("auroc", -0.1, "drifted"),
        ("acc", -0.1, "drifted"),
        ("overconfidence", 0.1, "drifted"),
        ("overconfidence", -0.1, "within"),  # from 0.1 to 0
        ("overconfidence", -0.2, "within"),  # from 0.1 to -0.1
        ("overconfidence", -0.3, "drifted"),  # from 0.1 to -0.2
        ("overconfidence", 0.0, "within"),
    ],
)
def test_worse_is_up_or_down_as_the_metric_has_it(name: str, change: float, verdict: str) -> None:
    (test,) = gate(comparison([difference(name, change, 0.01)]), {name: 0.02})
    assert test.verdict == verdict
    assert test.low < test.worsening < test.high
    if name == "overconfidence":
        assert test.worsening == pytest.approx(abs(0.1 + change) - 0.1)


def test_a_difference_whose_sign_matters_brings_the_interval_of_the_sum() -> None:
    with pytest.raises(ValueError, match="overconfidence: its sign matters"):
        gate(comparison([difference("overconfidence", 0.1, 0.01)._replace(total=None)]), {"overconfidence": 0.0})


def test_few_docs_are_unclear_not_within() -> None:
    (test,) = gate(comparison([difference("ece", 0.01, 0.1)]), {"ece": 0.02})
    assert test.verdict == "unclear"
    (test,) = gate(comparison([difference("ece", 0.05, 0.1)]), {"ece": 0.02})
    assert test.verdict == "unclear"  # the point is beyond the tolerance, which is not enough


def test_what_is_undefined_is_not_tested_nor_counted() -> None:
    nan = float("nan")
    undefined = Difference("auroc", nan, nan, nan, nan, nan, nan, nan, 0, "one class only")
    tests = gate(comparison([undefined, difference("ece", 0.0351, 0.01)]), {"ece": 0.02, "auroc": 0.02})
    assert [test.verdict for test in tests] == ["undefined", "drifted"]
    assert tests[0].reason == "one class only"
    assert math.isnan(tests[0].p_adjusted)
    assert tests[1].p_adjusted == tests[1].p_value


def test_holm_is_over_tasks_metrics_and_the_pooled_docs() -> None:
    found = [difference("ece", 0.03, 0.01), difference("auroc", 0.0, 0.01)]
    tests = gate(comparison(found, found, pooled=found), {"ece": 0.02, "auroc": 0.02})
    assert [(t.task, t.metric) for t in tests[-2:]] == [("all", "ece"), ("all", "auroc")]
    assert len(tests) == 6
    np.testing.assert_allclose([t.p_adjusted for t in tests], metrics.holm([t.p_value for t in tests]))
    assert tests[0].p_value < 0.05
    assert tests[0].verdict == "unclear"  # one test alone would have called it drifted
    (alone,) = gate(comparison(found[:1]), {"ece": 0.02})
    assert alone.verdict == "drifted"


def test_a_metric_without_tolerance_is_not_tested() -> None:
    assert gate(comparison([difference("ece", 1, 0.1)]), {"auroc": 0.1}) == ()


def test_a_change_without_any_spread() -> None:
    (test,) = gate(comparison([difference("acc", 0.0, 0.0)]), {"acc": 0.0})
    assert (test.p_value, test.verdict) == (1.0, "within")
    (test,) = gate(comparison([difference("acc", -0.5, 0.0)]), {"acc": 0.0})
    assert (test.p_value, test.verdict) == (0.0, "drifted")


@pytest.mark.parametrize(("d", "tolerance"), [(0.01, 0.02), (0.03, 0.02), (-0.05, 0.02)])
def test_so_many_docs_settle_it(d: float, tolerance: float) -> None:
    half = 0.04
    tests = gate(comparison([difference("ece", d, half)]), {"ece": tolerance})
    if tests[0].verdict != "unclear":
        assert docs_to_settle(tests) == 0
        return
    needed = docs_to_settle(tests)
    for docs, expected in (needed * 1.01, {"within", "drifted"}), (needed * 0.95, {"unclear"}):
        (again,) = gate(comparison([difference("ece", d, half * math.sqrt(10 / docs))]), {"ece": tolerance})
        assert again.verdict in expected, (docs, again)


def test_an_estimate_of_just_the_tolerance_is_never_settled() -> None:
    assert docs_to_settle(gate(comparison([difference("ece", 0.02, 0.01)]), {"ece": 0.02})) == math.inf


def test_what_is_the_same_in_every_doc_is_unchanged() -> None:
    same, other = difference("acc", 0.0, 0.07)._replace(is_same=True), difference("auroc", 0.0, 0.07)
    assert [test.verdict for test in gate(comparison([same, other]), {"acc": 0.02, "auroc": 0.02})] == [
        "unchanged",
        "unclear",
    ]
