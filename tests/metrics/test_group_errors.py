"""Errors of groups of docs: their definition, their intervals, what they say."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from simulations.group_errors import draw_regime, simulate

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.fields import Field, groups_of
from lm_eval_calibration.metrics.group_errors import group_errors

N = 1200


def made(seed: int = 0, off: float = 0.0) -> tuple[Any, Any, dict[str, Any]]:
    """Docs of two wards and three languages; ward b is overconfident, ward a underconfident by ``off``."""
    rng = np.random.default_rng(seed)
    ward, language = rng.choice(["a", "b"], N), rng.choice(["de", "en", "fr"], N, p=[0.1, 0.6, 0.3])
    confidence = rng.uniform(0.3, 0.8, N)
    correct = rng.random(N) < confidence + np.where(ward == "a", off, -off)
    return confidence, correct.astype(int), {"doc.ward": ward, "doc.language": language}


def test_every_group_and_pair_is_there_with_its_definition() -> None:
    confidence, correct, values = made()
    found = group_errors(confidence, correct, {name: Field.of(of) for name, of in values.items()})
    expected = {}
    for choice in product([None, "a", "b"], [None, "de", "en", "fr"]):
        pairs = [(name, value) for name, value in zip(values, choice, strict=True) if value is not None]
        member = np.all([values[name] == value for name, value in pairs], axis=0) if pairs else np.ones(N, bool)
        if pairs and member.sum() >= 20:
            expected[frozenset(pairs)] = confidence[member].mean() - correct[member].mean()
    assert len(expected) == 11
    assert {frozenset(one.group): one.gap for one in found.groups} == pytest.approx(expected, abs=1e-12)
    assert abs(found.groups[0].gap) == max(abs(one.gap) for one in found.groups) == found.largest.value


def test_bins_of_groups_are_those_of_ece() -> None:
    confidence, correct, values = made()
    found = group_errors(confidence, correct, {"doc.ward": Field.of(values["doc.ward"])}, n_bins=5)
    for one in found.bins:
        assert one.bin is not None
        member = (values["doc.ward"] == one.group[0][1]) & (metrics.bin_index(confidence, 5) == round(one.bin[0] * 5))
        assert one.n_docs == member.sum()
        assert one.gap == pytest.approx(confidence[member].mean() - correct[member].mean(), abs=1e-12)


def test_opposite_errors_of_two_groups_are_found_where_all_docs_look_fine() -> None:
    confidence, correct, values = made(off=0.15)
    assert abs(metrics.overconfidence(confidence, correct)) < 0.03
    found = group_errors(confidence, correct, {"doc.ward": Field.of(values["doc.ward"])})
    assert {one.group[0][1]: one.tendency for one in found.groups} == {"a": "underconfident", "b": "overconfident"}
    assert 0.05 < found.largest.low < 0.15 < found.largest.high


def test_small_groups_equal_groups_and_all_docs_are_no_groups() -> None:
    wards = np.array(["a"] * 40 + ["b"] * 19 + ["c"] * 30)
    fields = {"one": Field.of(wards), "same": Field.of(np.char.upper(wards)), "all": Field.of(["x"] * 89)}
    assert {key: len(rows) for key, rows in groups_of(fields).items()} == {(("one", "a"),): 40, (("one", "c"),): 30}


def test_docs_without_a_value_are_in_no_group_of_the_field() -> None:
    field = Field.of(["a"] * 25 + [""] * 30 + ["b"] * 25)
    assert field.values == ("a", "b")
    assert sorted(map(len, groups_of({"f": field}).values())) == [25, 25]


def test_without_groups_nothing_is_said() -> None:
    found = group_errors([0.5] * 10, [1] * 10, {"f": Field.of(["a", "b"] * 5)})
    assert found.groups == ()
    assert np.isnan(found.largest.value)


def test_one_group_has_the_interval_of_overconfidence_and_a_little_more() -> None:
    confidence, correct, values = made()
    ward = Field.of(np.where(values["doc.ward"] == "a", "a", ""))
    found = group_errors(confidence, correct, {"doc.ward": ward}, n_bins=1)
    member = values["doc.ward"] == "a"
    low, high = metrics.overconfidence_interval(confidence[member], correct[member], level=0.975)
    reach = np.abs(confidence - confidence[member].mean()).max() * np.log(2 / 0.025) / (3 * member.sum())
    assert (found.groups[0].low, found.groups[0].high) == pytest.approx((low - reach, high + reach), abs=1e-12)


def test_groups_of_one_cluster_are_left_out() -> None:
    confidence, correct, values = made()
    ward = values["doc.ward"]
    cluster = np.where(ward == "a", 0, 1 + np.arange(N) // 2)
    found = group_errors(confidence, correct, {"doc.ward": Field.of(ward)}, cluster=cluster)
    assert [one.group for one in found.groups] == [(("doc.ward", "b"),)]


def test_another_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"doc\.ward has 2 docs, but confidence has 3"):
        group_errors([0.5, 0.5, 0.5], [1, 0, 1], {"doc.ward": Field.of(["a", "b"])})


@pytest.mark.slow
def test_intervals_hold_at_once_in_regimes_drawn_at_random() -> None:
    """At least 95% but for Monte Carlo errors; all that is said of calibrated docs is false in at most 5%."""
    rng, draws = np.random.default_rng(8), 60
    rows = [simulate(draw_regime(rng), draws=draws, seed=i) for i in range(12)]
    held = np.array([min(row.groups, row.bins, row.largest) for row in rows])
    assert held.mean() >= 0.95
    assert held.min() >= 0.86  # three standard errors of 60 draws below 95%
    said = [row.words for row in rows if not np.isnan(row.words)]
    assert np.mean(said) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / (draws * len(said)))
