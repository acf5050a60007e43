"""The settings and the log of a run: two of them in one process don't mix."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from lm_eval_calibration.harness.log import logger, warn_of_tasks
from lm_eval_calibration.harness.run import RunSettings, current_run, with_run_settings


def evaluate(
    lm: Any, task_dict: Any, bootstrap_iters: int | None = 100, log_samples: bool = True, during: Any = None
) -> Any:
    return during()


patched = with_run_settings(evaluate)


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records]


def test_settings_are_those_of_the_call_and_defaults_outside() -> None:
    seen = patched("lm", {"tasks": {"t": 1}}, None, during=current_run)
    assert seen == RunSettings("lm", {"t": 1}, log_samples=True, bootstrap_iters=None)
    assert not seen.has_stderrs
    assert patched("lm", {}, during=current_run).bootstrap_iters == 100
    assert current_run() == RunSettings()
    assert current_run().has_stderrs


def test_a_run_inside_a_run_has_settings_of_its_own() -> None:
    def outer() -> list[Any]:
        return [patched("inner", {}, during=current_run).lm, current_run().lm]

    assert patched("outer", {}, during=outer) == ["inner", "outer"]


def test_a_run_warns_once_and_the_next_one_again(harness_log: pytest.LogCaptureFixture) -> None:
    def twice() -> bool:
        logger.warning("low")
        logger.warning("low")
        return True

    for _ in range(2):
        patched("lm", {}, during=twice)
    assert lines(harness_log) == ["low", "low"]
    twice()  # no run: nothing is kept
    assert lines(harness_log) == ["low"] * 4


def test_what_tasks_share_is_one_line_at_the_end_of_the_run(harness_log: pytest.LogCaptureFixture) -> None:
    def run() -> bool:
        for n in range(5):
            warn_of_tasks([f"t{n}"], f"{n} docs are few", summary="few docs")
        warn_of_tasks(["t0", "t1"], "all docs are few", summary="few docs")
        warn_of_tasks(["alone"], "its own")
        warn_of_tasks(["t3", "t4"], "of a group")
        assert not lines(harness_log)
        return True

    patched("lm", {}, during=run)
    assert lines(harness_log) == [
        "5 tasks (t0, t1, t2, ...) and a group of 2 tasks (t0, ...): few docs",
        "alone: its own",
        "2 tasks (t3, ...): of a group",
    ]
    warn_of_tasks(["later"], "no run")
    assert lines(harness_log)[3:] == ["later: no run"]


def test_a_rank_that_has_no_results_and_a_run_that_fails_leave_no_line(harness_log: pytest.LogCaptureFixture) -> None:
    patched("lm", {}, during=lambda: warn_of_tasks(["t"], "waits"))
    with pytest.raises(ZeroDivisionError):
        patched("lm", {}, during=lambda: [warn_of_tasks(["t"], "waits"), 1 / 0])
    assert not lines(harness_log)


def test_two_threads_have_runs_of_their_own(harness_log: pytest.LogCaptureFixture) -> None:
    together = Barrier(2)

    def run(name: str) -> Any:
        def during() -> Any:
            together.wait()
            logger.warning("both")
            warn_of_tasks([name], "few docs")
            together.wait()
            logger.warning("both")
            return current_run().lm

        return patched(name, {}, during=during)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, ["a", "b"])) == ["a", "b"]
    assert sorted(lines(harness_log)) == ["a: few docs", "b: few docs", "both", "both"]
