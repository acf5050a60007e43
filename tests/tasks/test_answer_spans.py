"""Where answers stand: filters as they stand in stock tasks, on texts whose answers were marked by hand."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from answers_in_texts import DOC, TEXTS
from lm_eval.api.filter import Filter, FilterEnsemble
from lm_eval.filters import build_filter_ensemble
from lm_eval.filters.extraction import RegexFilter

from lm_eval_calibration.harness.stock import stock_config
from lm_eval_calibration.tasks.answer_spans import locate_answer

CASES = [(task, name, text) for (task, name), texts in TEXTS.items() for text in texts]


@cache
def stock_filter(task: str, name: str) -> FilterEnsemble:
    """Return a filter of a stock task, as the harness builds it."""
    (listed,) = (listed for listed in stock_config(task)["filter_list"] if listed["name"] == name)
    steps = [(step["function"], {k: v for k, v in step.items() if k != "function"}) for step in listed["filter"]]
    return build_filter_ensemble(name, steps)


def harness_answers(ensemble: FilterEnsemble, texts: list[str], n_samples: int) -> list[Any]:
    """Return what a filter makes of texts in one batch, since some need half a second to begin."""
    instances = [SimpleNamespace(resps=[text] * n_samples, doc=DOC, filtered_resps={}) for text in texts]
    ensemble.apply(instances)
    return [instance.filtered_resps[ensemble.name] for instance in instances]


def parsed(marked: str) -> tuple[str, tuple[int, int] | None]:
    """Return a text without its marks, and the span that they mark."""
    text = marked.removeprefix("?")
    if "‹" not in text:
        return text, None
    start = text.index("‹")
    return text.replace("‹", "").replace("›", ""), (start, text.index("›") - 1)


def test_there_are_enough_texts():
    assert len(TEXTS) == 20
    assert len(CASES) == len(set(CASES)) == 200


@pytest.mark.parametrize(("task", "name", "marked"), CASES)
def test_span_is_the_marked_one(task, name, marked):
    text, span = parsed(marked)
    located = locate_answer(stock_filter(task, name), text, DOC)
    assert located.span == span
    assert located.is_found == (span is not None or marked.startswith("?"))
    assert bool(located.problem) == marked.startswith("?")


@pytest.mark.parametrize(("task", "name"), TEXTS)
def test_answer_is_the_harness_s(task, name):
    ensemble = stock_filter(task, name)
    n_samples = 8 if name == "maj@8" else 10 if task.startswith("simple_cooccurrence") else 1
    texts = [parsed(marked)[0] for _, _, marked in CASES]
    for text, made_of_it in zip(texts, harness_answers(ensemble, texts, n_samples), strict=True):
        answer = made_of_it[:1] if isinstance(made_of_it, list) else made_of_it
        located = locate_answer(ensemble, text, DOC)
        assert located.answer == answer
        assert located == locate_answer(ensemble, text, DOC, answer)


class Shouted(RegexFilter):
    """A filter of somebody's own with a regex, whose answers aren't what the regex finds."""

    def apply(self, resps, docs):
        return [[answer.upper() + "!" for answer in answers] for answers in super().apply(resps, docs)]


class FirstOfTwo(RegexFilter):
    """A filter of somebody's own that finds what its regex finds."""

    def apply(self, resps, docs):
        return [list(answers) for answers in super().apply(resps, docs)]


class Words(Filter):
    """A filter that gives a list."""

    def apply(self, resps, docs):
        return [[text.split() for text in texts] for texts in resps]


class Constant(Filter):
    """A filter that gives the same answer to everything."""

    def __init__(self, answer=""):
        self.answer = answer

    def apply(self, resps, docs):
        return [[self.answer for _ in texts] for texts in resps]


def made(*steps: Any) -> FilterEnsemble:
    return build_filter_ensemble("made", [step if isinstance(step, tuple) else (step, None) for step in steps])


@pytest.mark.parametrize(
    ("ensemble", "text", "span"),
    [
        (made("take_first"), " Yes ", (0, 5)),
        (made("remove_whitespace"), " Yes ", (1, 4)),
        (made("take_first", "take_first"), "Yes", None),  # the first character, which is looked for in the text
        (made((FirstOfTwo, {"regex_pattern": "[0-9]"}), "take_first"), "4, then 4", (0, 1)),
        (made((FirstOfTwo, {"regex_pattern": "[0-9]", "group_select": -1}), "take_first"), "4, then 4.", (8, 9)),
        (made((Shouted, {"regex_pattern": "no|yes"}), "take_first"), "NO! no", (0, 3)),
        (made(Words, "take_first"), "Yes No", None),
        (made(Words, "take_first"), "Yes", None),
        (made((Constant, {"answer": "CAN"}), "take_first"), "it CANNOT be; CAN", (14, 17)),
        (made((Constant, {"answer": "A"}), "take_first"), "CANNOT", None),
        (made((Constant, {"answer": "42"}), "take_first"), "1429, 42km", (6, 8)),
        (made((Constant, {"answer": "北京"}), "take_first"), "答案是北京。", (3, 5)),
        (made((Constant, {"answer": None}), "take_first"), "Yes", None),
        (made("uppercase", ("regex", {"regex_pattern": "SS (X)"})), "ß x", (2, 3)),
        (made("uppercase", ("regex", {"regex_pattern": "S"})), "ß", (0, 1)),
        (made(("map", {"mapping_dict": {"x": "yes"}}), ("regex", {"regex_pattern": "e"})), "x", (0, 1)),
        (made(("regex", {"regex_pattern": "x"}), ("map", {"mapping_dict": {"[invalid]": "no"}})), "y", None),
    ],
)
def test_other_filters(ensemble, text, span):
    located = locate_answer(ensemble, text, {})
    assert located.span == span
    assert located == locate_answer(ensemble, text, {}, located.answer)


def test_list_is_named():
    located = locate_answer(made(Words, "take_first"), "Yes No", {})
    assert located == (["Yes", "No"], None, True, "the filter gives a list")


def test_answer_of_a_fallback_after_a_map_is_not_found():
    ensemble = made(("regex", {"regex_pattern": "x"}), ("map", {"mapping_dict": {"[invalid]": "no"}}), "take_first")
    assert locate_answer(ensemble, "no", {}) == ("no", None, False, "")


def test_answer_that_the_caller_knows_wins():
    ensemble = stock_filter("gsm8k", "flexible-extract")
    assert locate_answer(ensemble, "3, 4, 3 or 5", {}, "3") == ("3", (6, 7), True, "")
    assert locate_answer(ensemble, "3, 4", {}, "6").problem == "the filter's answer stands nowhere in the text"
    assert locate_answer(ensemble, "3, 4", {}, "[invalid]") == ("[invalid]", None, False, "")


def test_filter_whose_answer_is_known_is_not_applied():
    """Some need half a second a text: harness's multi_choice_regex builds a table of all of Unicode."""

    class Slow(Filter):
        def apply(self, resps, docs):
            raise AssertionError

    assert locate_answer(made(Slow, "take_first"), "so 42.", {}, "42").span == (3, 5)
    ensemble = stock_filter("gpqa_diamond_cot_zeroshot", "flexible-extract")
    assert locate_answer(ensemble, "(A) is it", DOC, "(A)").span == (0, 3)
