"""One pass over the records for all metrics of a task or group."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lm_eval_calibration.harness.pools import DocPool
from lm_eval_calibration.metrics import CATALOG, CORE
from lm_eval_calibration.records import ChoicesRecord, Columns, Record, metric_arrays
from lm_eval_calibration.tasks.aggregation import MetricStatistic


def make_records(n: int) -> list[Record]:
    rng = np.random.default_rng(0)
    return [
        ChoicesRecord(
            task="t",
            doc_id=i,
            doc_hash="d",
            prompt_hash="p",
            log_likelihoods=tuple(rng.normal(0, 2, 4).tolist()),
            gold=int(rng.integers(4)),
            log_probs=(float(np.log(0.3)),),
            large_probs=((0.3, 0.25),),
            kept_from=0.05,
        )
        for i in range(n)
    ]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of docs of each pass over records."""
    made: list[int] = []
    of = Columns.of.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Columns], docs: Iterable[Any], n_bins: int = 10) -> Columns:
        columns: Columns = of(cls, docs, n_bins)
        made.append(len(columns))
        return columns

    monkeypatch.setattr(Columns, "of", classmethod(counted))
    return made


def test_all_metrics_of_a_task_take_one_pass(passes: list[int]) -> None:
    pool = DocPool(make_records(40))
    statistics = {name: MetricStatistic(CATALOG[name]) for name in CORE}
    found = {name: (statistic.value(pool), statistic.stderr(pool)) for name, statistic in statistics.items()}
    assert passes == [40]
    for name, (value, error) in found.items():
        arrays = metric_arrays(pool.records, CATALOG[name].kind, 10)
        assert value == pytest.approx(CATALOG[name].value(*arrays), abs=1e-12)
        assert error == pytest.approx(CATALOG[name].stderr(*arrays), abs=1e-12)


def test_other_docs_bins_or_views_take_another_pass(passes: list[int]) -> None:
    records, ece = make_records(40), CATALOG["ece"]
    pool = DocPool(records[:30])

    def surer(records: Iterable[Record]) -> list[Record]:
        return [replace(r, log_likelihoods=tuple(3 * x for x in r.log_likelihoods)) for r in records]

    values = [
        MetricStatistic(ece)(records),
        MetricStatistic(ece).value(pool),
        MetricStatistic(ece, n_bins=15).value(pool),
        MetricStatistic(ece, n_bins=15, view=surer).value(pool),
        MetricStatistic(ece, n_bins=15, view=surer)([replace(r, gold=0) for r in records[:30]]),
    ]
    assert len(passes) == len(set(values)) == len(values)
    again = surer(records[:30])
    assert values[3] == ece.value(*metric_arrays(again, "top_label", 15), n_bins=15)
