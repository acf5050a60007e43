from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from completions_server import Behaviour, completions_server
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends import TokenScores
from lm_eval_calibration.backends.api.echo import positions

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalCompletionsAPI

scoring.install()

slow = partial(pytest.param, marks=pytest.mark.slow)

pytestmark = pytest.mark.usefixtures("no_waits")


def make_requests() -> list[Instance]:
    rows = tiny.make_rows(6)
    return [
        Instance("x", row, (f"{row['question']}\nAnswer:", f" {choice}"), i, metadata=("letters", n, 1))
        for n, row in enumerate(rows)
        for i, choice in enumerate(row["choices"])
    ]


def ask(
    url: str, tokenizer_path: str, cache: Path | None = None, requests: list[Instance] | None = None, **options: Any
) -> list[TokenScores]:
    lm: Any = LocalCompletionsAPI(
        base_url=url,
        model="tiny",
        tokenizer=tokenizer_path,
        tokenizer_backend="huggingface",
        batch_size=3,
        **{"max_retries": 3, "max_length": 256, **options},
    )
    if cache is not None:
        lm = CachingLM(lm, str(cache))
    return getattr(lm, scoring.SCORING_REQUEST_TYPE)(requests or make_requests())


@pytest.mark.parametrize("concurrent", [slow(1), 4])
def test_a_server_gives_what_the_model_gives(gpt2_lm: Any, tokenizer_path: str, concurrent: int) -> None:
    expected = getattr(gpt2_lm, scoring.SCORING_REQUEST_TYPE)(make_requests())
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour()) as url:
        found = ask(url, tokenizer_path, num_concurrent=concurrent)
    assert [a[1] for a in found] == [a[1] for a in expected]
    for ours, hf in zip(found, expected, strict=True):
        assert ours[0] == pytest.approx(hf[0], abs=1e-5)
        np.testing.assert_allclose(ours.log_probs, hf.log_probs, atol=1e-5)
        assert ours.vocab_size == hf.vocab_size
        for mine, all_of_them in zip(ours.large_probs or (), hf.large_probs or (), strict=True):
            above = all_of_them[all_of_them > ours.complete_from + 1e-6]
            np.testing.assert_allclose(np.sort(mine)[len(mine) - len(above) :], np.sort(above), atol=1e-6)
    assert all(a.certificate["distributions"] == "top_k" and a.certificate["k"] == 20 for a in found)


@pytest.mark.parametrize(("most", "ids", "granted"), [slow(20, False, 20), (5, None, 5), slow(1, None, 1)])
def test_a_server_may_accept_less(gpt2_lm: Any, tokenizer_path: str, most: int, ids: bool | None, granted: int) -> None:
    behaviour = Behaviour(most=most, ids=ids)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        found = ask(url, tokenizer_path)
    assert {a.certificate["k"] for a in found} == {granted}
    assert behaviour.received[-1]["logprobs"] == granted
    exact = getattr(gpt2_lm, scoring.SCORING_REQUEST_TYPE)(make_requests())
    for ours, hf in zip(found, exact, strict=True):
        assert ours[0] == pytest.approx(hf[0], abs=1e-5)
        for mine, all_of_them in zip(ours.large_probs or (), hf.large_probs or (), strict=True):
            n_missing = len(all_of_them) - len(mine)
            assert np.sort(all_of_them)[:n_missing].max(initial=0) <= ours.complete_from


@pytest.mark.parametrize("concurrent", [1, slow(2)])
def test_faults_are_tried_again_and_give_no_wrong_number(gpt2_lm: Any, tokenizer_path: str, concurrent: int) -> None:
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour()) as url:
        expected = ask(url, tokenizer_path)
    behaviour = Behaviour(faults=["500", "cut", "", "few", "nan", "", "none"])
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        assert ask(url, tokenizer_path, num_concurrent=concurrent, max_retries=6) == expected
    assert not behaviour.faults


@pytest.mark.slow
def test_a_request_that_takes_too_long_is_sent_again(gpt2_lm: Any, tokenizer_path: str) -> None:
    calm, slow = Behaviour(), Behaviour(faults=["slow"])
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, calm) as url:
        expected = ask(url, tokenizer_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, slow) as url:
        assert ask(url, tokenizer_path, timeout=4) == expected
    assert len(slow.received) > len(calm.received)


@pytest.mark.parametrize(
    ("fault", "concurrent", "said"),
    [
        slow("few", 2, "log-probabilities"),
        ("nan", 2, "log-probability of token .* is nan"),
        slow("nan", 1, "log-probability of token .* is nan"),
        slow("none", 2, "no log-probabilities of the prompt"),
    ],
)
def test_a_lasting_fault_is_an_error(gpt2_lm: Any, tokenizer_path: str, fault: str, concurrent: int, said: str) -> None:
    with (
        completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(faults=[fault] * 99)) as url,
        pytest.raises(ValueError, match=said),
    ):
        ask(url, tokenizer_path, num_concurrent=concurrent)


@pytest.mark.slow
@pytest.mark.real_model
def test_a_shifted_server_is_found_out(smollm2_lm: Any, tmp_path: Path, harness_log: pytest.LogCaptureFixture) -> None:
    """Only a model that has learnt a language can show it: it expects what comes next."""
    smollm2_lm.tokenizer.save_pretrained(tmp_path)
    for shifted in (False, True):
        harness_log.clear()
        with completions_server(smollm2_lm.model, smollm2_lm.tokenizer, Behaviour(shifted=shifted)) as url:
            ask(url, str(tmp_path), requests=make_requests()[:6])
        assert ("shifted by one position" in harness_log.text) == shifted


def test_an_answer_may_end_with_the_last_token_sent() -> None:
    """Where nothing is told of the token more; one that has lost a token elsewhere is refused."""
    choice = {"logprobs": {"tokens": ["a", "b", "c"], "token_logprobs": [None, -1.0, -2.0], "top_logprobs": None}}
    assert [position.log_prob for position in positions(choice, [0, 1, 2], last=["token_id:2", "c"])][1:] == [
        -1.0,
        -2.0,
    ]
    assert [position.log_prob for position in positions(choice, [0, 1], last=["b"])][1:] == [-1.0]
    for last in (["d"], []):
        with pytest.raises(ValueError, match="has 3 tokens; 3 were sent and one was requested"):
            positions(choice, [0, 1, 2], last=last)
    with pytest.raises(ValueError, match="has 3 tokens; 4 were sent"):
        positions(choice, [0, 1, 2, 3], last=["token_id:2", "c"])


def test_use_cache_keeps_what_the_server_said(gpt2_lm: Any, tokenizer_path: str, tmp_path: Path) -> None:
    behaviour = Behaviour()
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        first = ask(url, tokenizer_path, tmp_path / "cache.db")
        n_received = len(behaviour.received)
        again = ask(url, tokenizer_path, tmp_path / "cache.db")
    assert len(behaviour.received) == n_received
    assert again == first
    assert all(a.has_distributions for a in again)
