from importlib.metadata import entry_points
from typing import Any

import pytest
from lm_eval.api import registry
from tiny import make_config, make_rows, run_tasks

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.tasks import CalibratedTask, registration

OURS = [name for name in CATALOG if name != "brier_score"]  # that one is the harness's own name, and definition


@pytest.mark.parametrize("name", OURS)
def test_registered_under_its_name_with_its_direction(name: str) -> None:
    assert registry.get_metric(name) is registration.METRICS[name]
    assert registry.get_aggregation(name) is registration.AGGREGATIONS[name]
    assert registry.get_metric_aggregation(name) is registration.AGGREGATIONS[name]
    if CATALOG[name].higher_is_better is not None:
        assert registry.is_higher_better(name) == CATALOG[name].higher_is_better


@pytest.mark.parametrize("group", ["metrics", "aggregations"])
def test_entry_points_for_the_next_harness_release_load_what_is_registered(group: str) -> None:
    ours = [e for e in entry_points(group=f"lm_eval.{group}") if e.value.startswith("lm_eval_calibration")]
    assert {entry.name for entry in ours} == set(OURS)
    expected = registration.METRICS if group == "metrics" else registration.AGGREGATIONS
    for entry in ours:
        assert entry.load() is expected[entry.name]


def test_no_such_metric() -> None:
    with pytest.raises(AttributeError, match="no metric named 'eec'"):
        registration.__getattr__("eec")


def test_a_name_the_harness_owns_stays_its_own_and_ours_still_computes(
    gpt2_lm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def theirs(items: Any) -> float:
        return -1.0

    for table in (registry.metric_registry, registry.aggregation_registry, registry.metric_agg_registry):
        monkeypatch.setitem(table._objs, "ece", theirs)
    registration.register()
    assert registry.get_aggregation("ece") is theirs
    results = run_tasks(gpt2_lm, [CalibratedTask(make_config(make_rows()))])
    assert 0 < results["results"]["letters_calibration"]["ece,none"] < 1
