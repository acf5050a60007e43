import io
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CachingLM, hash_args
from tiny import scoring_requests

from lm_eval_calibration import backends as scoring

scoring.install()


class CountingLM(LM):
    """A backend with log-likelihoods only, as servers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.asked += [request.args for request in requests]
        return [(-float(len(continuation)), False) for _, continuation in (r.args for r in requests)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError


def make_requests(texts: Sequence[str]) -> list[Instance]:
    return scoring_requests(["context"], texts)


def test_any_backend_answers_the_request_type(harness_log: pytest.LogCaptureFixture) -> None:
    ours = getattr(CountingLM(), scoring.SCORING_REQUEST_TYPE)(make_requests(["a", "bcd"]))
    assert ours == [(-1.0, False), (-3.0, False)]
    assert "CountingLM gives no token distributions (it returns log-likelihoods only)" in harness_log.text


def test_use_cache_answers_again_without_the_model(tmp_path: Any) -> None:
    for asked in (2, 1):
        lm = CountingLM()
        cached = CachingLM(lm, str(tmp_path / "cache.db"))
        texts = ["a", "bcd"] if asked == 2 else ["bcd", "efgh", "a"]
        ours = getattr(cached, scoring.SCORING_REQUEST_TYPE)(make_requests(texts))
        assert ours == [(-float(len(text)), False) for text in texts]
        assert len(lm.asked) == asked
        cached.dbdict.close()


def test_an_interrupted_run_resumes_from_the_backend_s_own_entries(tmp_path: Any) -> None:
    class Dying(CountingLM):
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            for request in requests:
                if len(self.asked) == 2 and self.dies:
                    raise ConnectionError
                (answer,) = super().loglikelihood([request])
                self.cache_hook.add_partial("loglikelihood", request.args, answer)
            return super().loglikelihood(requests)

    requests = make_requests(["a", "bcd", "ef", "g"])
    for dies in (True, False):
        lm = Dying()
        lm.dies = dies
        cached = CachingLM(lm, str(tmp_path / "cache.db"))
        if dies:
            with pytest.raises(ConnectionError):
                getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)
        else:
            assert [a[0] for a in getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)] == [-1.0, -3.0, -2.0, -1.0]
            assert {text for _, text in lm.asked} == {"ef", "g"}
        cached.dbdict.close()


def test_cached_answers_without_distributions_are_asked_again_where_they_can_be_had(
    gpt2_lm: Any, tmp_path: Any
) -> None:
    requests = make_requests(["a", " bc"])
    plain = CachingLM(CountingLM(), str(tmp_path / "cache.db"))
    getattr(plain, scoring.SCORING_REQUEST_TYPE)(requests)
    plain.dbdict.close()
    hook = gpt2_lm.cache_hook
    cached = CachingLM(gpt2_lm, str(tmp_path / "cache.db"))
    assert all(scores.has_distributions for scores in getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests))
    cached.dbdict.close()
    gpt2_lm.set_cache_hook(hook)


def test_use_cache_keeps_distributions(gpt2_lm: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = make_requests(["a", " bc"])
    monkeypatch.setattr(gpt2_lm, "cache_hook", gpt2_lm.cache_hook)
    cached = CachingLM(gpt2_lm, str(tmp_path / "cache.db"))
    first = getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)
    monkeypatch.setattr(gpt2_lm, "loglikelihood", None)  # must not be needed again
    second = getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)
    cached.dbdict.close()
    assert first == second
    for a, b in zip(first, second, strict=True):
        assert a.log_probs.tolist() == b.log_probs.tolist()
        assert [p.tolist() for p in a.large_probs] == [p.tolist() for p in b.large_probs]


def test_what_another_version_of_this_package_cached_is_no_answer(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = CachingLM(CountingLM(), str(tmp_path / "cache.db"))
    (request,) = make_requests(["abc"])
    cached.dbdict[hash_args(scoring.SCORING_REQUEST_TYPE, request.args)] = "whatever"
    moved = b"clm_eval_calibration.scoring.token_scores\nTokenScores\n."
    for loads in ("sqlitedict.loads", "pickle.loads"):  # the harness's cache; ours, where a run has put it in its place
        monkeypatch.setattr(loads, lambda _: pickle.Unpickler(io.BytesIO(moved)).load())
    assert getattr(cached, scoring.SCORING_REQUEST_TYPE)([request]) == [(-3.0, False)]
    cached.dbdict.close()


def test_a_backend_that_loses_answers_is_an_error() -> None:
    class Losing(CountingLM):
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return super().loglikelihood(requests)[1:]

    with pytest.raises(RuntimeError, match="Losing left 1 of 2 requests unanswered"):
        scoring.token_scores(Losing(), make_requests(["a", "b"]))


def test_no_torch_for_backends_that_need_none() -> None:
    import subprocess
    import sys

    code = "import sys, lm_eval_calibration.backends; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_hf_has_scored_before_it_dies_is_kept(
    gpt2_lm: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(["a", " bcd", " efghi", " jklmnop", " qrstuvwxyz", " 0123456789abc"])
    monkeypatch.setattr(gpt2_lm, "cache_hook", gpt2_lm.cache_hook)
    monkeypatch.setattr(gpt2_lm, "batch_size_per_gpu", 3)
    requests[0].shared_prefixes = False
    expected = scoring.token_scores(gpt2_lm, requests)
    cached = CachingLM(gpt2_lm, str(tmp_path / "cache.db"))
    calls: list[int] = []
    stock = type(gpt2_lm)._model_call

    def dying(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(arguments[0]))
        if len(calls) == 4:  # two to try the output layer, one batch, then the end
            raise KeyboardInterrupt
        return stock(self, *arguments, **options)

    monkeypatch.setattr(type(gpt2_lm), "_model_call", dying)
    with pytest.raises(KeyboardInterrupt):
        getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)
    calls[:] = [0] * 4
    rest = getattr(cached, scoring.SCORING_REQUEST_TYPE)(requests)
    cached.dbdict.close()
    assert calls[4:] == [2, 2, 3]  # tried again, and the one batch of three that was left
    assert [a[0] for a in rest] == pytest.approx([a[0] for a in expected], abs=1e-5)


class Mute(CountingLM):
    """A backend that scores nothing, as those of chats and pictures."""

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        raise NotImplementedError


def test_which_backends_score_texts(gpt2_lm: Any, tmp_path: Any) -> None:
    counting = CountingLM()
    assert scoring.can_score_texts(counting)
    assert not counting.asked
    assert scoring.can_score_texts(gpt2_lm)
    assert not scoring.can_score_texts(Mute())
    assert not scoring.can_score_texts(CachingLM(Mute(), str(tmp_path / "cache.db")))
