"""Final answers, options, budgets and chains with caches: of answers, of requests, of a run that was stopped."""

import string
from pathlib import Path
from typing import Any

import pytest
from generation_tasks import make_config, options
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from tiny import run_tasks

from lm_eval_calibration.tasks import CalibratedTask

SIGNS = list(string.ascii_letters + string.digits)
CHOSEN = {"answer_options": SIGNS, "budgets": [0, 4], "chain": 4, "tail": 4, "shared_prefixes": False}


def make_task(**chosen: Any) -> CalibratedTask:
    says = {
        "name": "says",
        "filter": [{"function": "regex", "regex_pattern": "([A-Za-z0-9])"}, {"function": "take_first"}],
    }
    config = make_config(
        [{"question": f"Question {i}", "answer": SIGNS[i]} for i in range(6)],
        filter_list=[says],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
        **options(**chosen),
    )
    return CalibratedTask(config)


Found = tuple[dict[str, Any], list[Any], int]
"""The results, the records, and how often the model was asked for them."""


class Watched:
    """How often the model is asked to write or to score, and after how many of these it fails."""

    def __init__(self, lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lm, self.calls, self.fails_after = lm, 0, 10**9
        for name in ("_model_generate", "_model_call"):
            monkeypatch.setattr(type(lm), name, self.counting(getattr(type(lm), name)))
        monkeypatch.setattr(lm, "batch_size_per_gpu", 1)

    def counting(self, method: Any) -> Any:
        def counted(lm: Any, *args: Any, **kwargs: Any) -> Any:
            if self.calls >= self.fails_after:
                raise KeyboardInterrupt
            self.calls += 1
            return method(lm, *args, **kwargs)

        return counted

    def run(self, task: CalibratedTask, cache: Path | None = None, **chosen: Any) -> Found:
        self.calls = 0
        self.lm.set_cache_hook(CacheHook(None))  # the harness leaves that of the last run
        found = run_tasks(self.lm, [task], use_cache=None if cache is None else str(cache), **chosen)
        name = "sums_calibration"
        row = {k: v for k, v in found["results"][name].items() if isinstance(v, float)}
        return row, [line["calibration"] for line in found["samples"][name]], self.calls


@pytest.fixture
def watched(gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(gpt2_lm, monkeypatch)


def assert_same(found: Any, expected: Any) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-6, nan_ok=True)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["generation"]["answer"] == theirs["generation"]["answer"]
        for mine, other in zip(ours.get("budgets", ()), theirs.get("budgets", ()), strict=True):
            assert mine == pytest.approx(other, abs=1e-6)


def test_a_second_run_asks_nothing(watched: Watched, tmp_path: Path) -> None:
    plain = watched.run(make_task(**CHOSEN))
    assert {"brier_score_answer,says", "auroc_chain,says", "ece_tail,says"} <= set(plain[0])
    first = watched.run(make_task(**CHOSEN), tmp_path / "cache.db")
    again = watched.run(make_task(**CHOSEN), tmp_path / "cache.db")
    assert_same(first, plain)
    assert_same(again, plain)
    assert (first[2], again[2]) == (plain[2], 0)


def test_options_that_are_set_later_get_what_they_need(watched: Watched, tmp_path: Path) -> None:
    """A cached text has no numbers along its chain; budgets and options ask more."""
    watched.run(make_task(), tmp_path / "cache.db")
    assert_same(watched.run(make_task(**CHOSEN), tmp_path / "cache.db"), watched.run(make_task(**CHOSEN)))
    assert watched.run(make_task(), tmp_path / "cache.db")[2] == 0  # more than is wanted


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_run_that_was_stopped_resumes(watched: Watched, tmp_path: Path, share: float) -> None:
    plain = watched.run(make_task(**CHOSEN))
    watched.fails_after = int(share * plain[2])
    with pytest.raises(KeyboardInterrupt):
        watched.run(make_task(**CHOSEN), tmp_path / "cache.db")
    watched.fails_after = 10**9
    resumed = watched.run(make_task(**CHOSEN), tmp_path / "cache.db")
    assert_same(resumed, plain)
    assert resumed[2] <= plain[2] - int(share * plain[2]) + 1


@pytest.mark.slow
def test_cached_requests_serve_other_options(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    plain, chosen = watched.run(make_task()), watched.run(make_task(**CHOSEN))
    assert_same(watched.run(make_task(), cache_requests=True), plain)
    assert list(tmp_path.iterdir())
    assert_same(watched.run(make_task(**CHOSEN), cache_requests=True), chosen)
    assert_same(watched.run(make_task(), cache_requests=True), plain)
