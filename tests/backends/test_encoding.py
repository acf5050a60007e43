"""Texts tokenized many at a time: the harness's tokens, from few calls."""

from collections.abc import Callable
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from tiny import scoring_requests

from lm_eval_calibration.backends.hf import encoding
from lm_eval_calibration.backends.hf.log_likelihood import _tokenize

CONTEXTS = [f"Question {i}, and its words" + " \n" * (i % 3) for i in range(9)] + ["<eos>It begins so", "", "é"]


def tokens(lm: HFLM, requests: list[Any], tokenize: Callable[..., Any]) -> list[Any]:
    """What the harness makes of requests."""
    found: list[Any] = []
    tokenize(lm, requests, lambda encoded, **_: found.extend(encoded) or [], disable_tqdm=True)
    return found


def stock(lm: HFLM, requests: list[Any], take: Any, **options: Any) -> None:
    with encoding.replaced(lm, _loglikelihood_tokens=take):
        lm.loglikelihood(requests, **options)


class Counting:
    """A tokenizer's calls on several texts, and on one."""

    def __init__(self, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.many: list[int] = []
        self.single = 0
        call, encode = type(tokenizer).__call__, tokenizer.encode

        def counting(this: Any, texts: Any, *arguments: Any, **options: Any) -> Any:
            self.many.append(len(texts))
            return call(this, texts, *arguments, **options)

        def one(*arguments: Any, **options: Any) -> Any:
            self.single += 1
            return encode(*arguments, **options)

        monkeypatch.setattr(type(tokenizer), "__call__", counting)
        monkeypatch.setattr(tokenizer, "encode", one)


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_the_tokens_are_the_harness_s(at_a_time: int, gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_AT_A_TIME", at_a_time)
    requests = scoring_requests(CONTEXTS, (" A", " B", " Canberra", "x"))
    assert tokens(gpt2_lm, requests, _tokenize) == tokens(gpt2_lm, requests, stock)


def test_texts_are_tokenized_once_and_many_in_a_call(gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = scoring_requests([f"Question {i}?" for i in range(30)], (" A", " B", " C", " D"))
    counted = Counting(gpt2_lm.tokenizer, monkeypatch)
    tokens(gpt2_lm, requests, stock)
    assert (sum(counted.many), counted.single) == (0, 8 * 30)
    counted.single = 0
    tokens(gpt2_lm, requests, _tokenize)
    assert (counted.many, counted.single) == ([5 * 30], 1)


@pytest.mark.parametrize("fault", [lambda *_, **__: 1 / 0, lambda _, texts, **__: {"input_ids": [[5]] * len(texts)}])
def test_a_tokenizer_that_takes_one_text_at_a_time_is_given_one(
    fault: Any, gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = scoring_requests(CONTEXTS, (" A", " B"))
    expected = tokens(gpt2_lm, requests, stock)
    monkeypatch.setattr(type(gpt2_lm.tokenizer), "__call__", fault)
    assert tokens(gpt2_lm, requests, _tokenize) == expected
