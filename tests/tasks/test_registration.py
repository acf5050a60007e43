import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api import registry
from tiny import make_config, make_rows, run_tasks

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.tasks import CalibratedTask, registration

OURS = [name for name in CATALOG if name != "brier_score"]  # that one is the harness's own name, and definition

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
ENTRY_POINTS = PYPROJECT["project"]["entry-points"]["lm_eval.metrics"]


@pytest.mark.parametrize("name", OURS)
def test_registered_under_its_name_with_its_direction(name: str) -> None:
    assert registry.get_metric(name) is registration.METRICS[name]
    assert registry.get_aggregation(name) is registry.get_metric_aggregation(name)
    if CATALOG[name].higher_is_better is not None:
        assert registry.is_higher_better(name) == CATALOG[name].higher_is_better


def test_entry_points_are_those_of_all_metrics_and_load_what_is_registered() -> None:
    assert list(ENTRY_POINTS) == OURS
    for name, value in ENTRY_POINTS.items():
        assert EntryPoint(name, value, "lm_eval.metrics").load() is registry.get_metric(name)


def test_loading_one_entry_point_registers_aggregation_and_direction() -> None:
    """The next release of the harness loads a metric's entry point, and looks for these in its registries then."""
    code = (
        "from importlib.metadata import EntryPoint; from lm_eval.api import registry;"
        f"EntryPoint('auroc', '{ENTRY_POINTS['auroc']}', 'lm_eval.metrics').load();"
        "assert callable(registry.get_metric_aggregation('auroc')) and registry.is_higher_better('auroc')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    monkeypatch.delitem(registration.METRICS, "ece")
    registration.register_all()
    assert registry.get_aggregation("ece") is theirs
    results = run_tasks(gpt2_lm, [CalibratedTask(make_config(make_rows()))])
    assert 0 < results["results"]["letters_calibration"]["ece,none"] < 1
