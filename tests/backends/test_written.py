"""Which characters each token of a text spells, and what is known of a text's end and of the thought before it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny import make_tokenizer

from lm_eval_calibration.backends.thoughts import is_open_thought
from lm_eval_calibration.backends.tokens import token_ends, tokens_of_span
from lm_eval_calibration.backends.written import Vocabulary, written_text

WORDS = ("<eos>", "one", " two", "\n", " three\nfour", "<think>", "</think>", "5", ".", "5.")


def spell(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are whole words; 0 ends a text."""
    return "".join(WORDS[token] for token in tokens if token)


def written(tokens: Sequence[int], text: str, think_end: Any = None, prompt: str = "") -> Any:
    log_probs = -np.arange(1.0, len(tokens) + 1)
    return written_text(text, prompt, tokens, log_probs, Vocabulary(spell, [0], think_end), certificate={"of": "test"})


def test_ends_are_those_of_growing_prefixes() -> None:
    tokenizer = make_tokenizer()  # a token a byte: characters of two and three tokens
    text = "aé€ 日本語 x."
    tokens = tokenizer.encode(text)
    ends = token_ends(tokens, text, tokenizer.decode)
    assert ends is not None
    encoded = text.encode()
    expected = [len(encoded[: i + 1].decode(errors="ignore")) for i in range(len(encoded))]
    assert ends.tolist() == expected


@pytest.mark.parametrize("text", ["日", "x日", "日x"])
def test_every_character_s_tokens_are_all_its_bytes(text: str) -> None:
    tokenizer = make_tokenizer()
    ends = token_ends(tokenizer.encode(text), text, tokenizer.decode)
    assert ends is not None
    for i in range(len(text)):
        before, through = len(text[:i].encode()), len(text[: i + 1].encode())
        assert tokens_of_span(ends, i, i + 1) == slice(before, through)
    assert tokens_of_span(ends, 0, len(text)) == slice(0, len(text.encode()))


def test_half_a_character_at_the_limit_of_tokens() -> None:
    tokenizer = make_tokenizer()
    tokens = tokenizer.encode("a日")[:-1]
    text = tokenizer.decode(tokens)
    ends = token_ends(tokens, text, tokenizer.decode)
    assert ends is not None
    assert ends[-1] == len(text)
    assert ends[0] == 1


def test_a_token_that_holds_the_answer_and_a_full_stop_counts() -> None:
    found = written([1, 2, 9, 0], "one two5.")
    assert found.token_ends.tolist() == [3, 7, 9]
    assert tokens_of_span(found.token_ends, 7, 8) == slice(2, 3)


@pytest.mark.parametrize(
    ("tokens", "text", "think_end", "expected"),
    [
        ([1, 2, 0, 0], "one two", None, "stop"),  # the end token
        ([1, 2, 3], "one two", None, "stop"),  # a stop string
        ([1, 4], "one three", None, "stop"),  # a stop string within a token
        ([1, 2, 7], "one two5", None, "length"),
        ([5, 2, 6, 1], "one", "</think>", "length"),
        ([], "", None, "stop"),
        ([0], "", None, "stop"),
    ],
)
def test_what_ended_a_text(tokens: list[int], text: str, think_end: Any, expected: str) -> None:
    assert written(tokens, text, think_end).finish_reason == expected


@pytest.mark.parametrize("think_end", ["</think>", 6])
def test_the_thought_has_probabilities_of_its_own(think_end: Any) -> None:
    found = written([5, 2, 6, 1, 2, 0], "one two", think_end)
    np.testing.assert_array_equal(found.thought_log_probs, [-1, -2, -3])
    np.testing.assert_array_equal(found.token_log_probs, [-4, -5])
    assert not found.thought_is_open


@pytest.mark.parametrize(
    ("prompt", "tokens", "text", "is_open"),
    [
        ("", [5, 1], "<think>one", True),
        ("Q <think>", [1, 2, 0], "one two", True),
        ("Q <think></think>", [1, 0], "one", False),
        ("Q <think></think>", [5, 1], "<think>one", True),
        ("Q", [1, 0], "one", False),
        ("What does <think> mean?", [1, 0], "one", False),  # the doc is about the mark
        ("Q <think>\n", [1, 0], "one", True),
    ],
)
def test_an_open_thought_is_seen(prompt: str, tokens: list[int], text: str, is_open: bool) -> None:
    found = written(tokens, text, "</think>", prompt)
    assert found.thought_is_open == is_open
    assert found.thought_log_probs is None


def test_a_closed_thought_is_none_that_is_open() -> None:
    assert not written([5, 2, 6, 1], "one", "</think>").thought_is_open
    assert not written([2, 6, 1], "one", "</think>", "Q <think>").thought_is_open


def test_a_string_without_a_slash_says_nothing_about_its_beginning() -> None:
    assert not is_open_thought("<think>", "", "###")


def test_a_text_of_other_tokens_has_no_probabilities() -> None:
    found = written([1, 2], "two one")
    assert found == "two one"
    assert (found.token_log_probs, found.token_ends, found.finish_reason) == (None, None, None)
