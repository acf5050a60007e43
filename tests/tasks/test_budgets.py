"""Budgets of thought: cut thoughts, the answers that follow, and their records."""

import json
from typing import Any

import numpy as np
import pytest
from generation_tasks import SAYS, chain, make_config, options, probability, run
from scripted import Scripted

from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask, TaskError

CUE = "\nSo it is"
BUDGETED = {**options(budgets=[0, 6, 999], budget_cue=CUE), "filter_list": [SAYS]}


class Thinker(Scripted):
    """After a cue it answers with the number of characters that it was let think, modulo ten."""

    def __init__(self, **known: Any) -> None:
        super().__init__(self._script, probability, **known)
        self.prompts: list[str] = []

    def _script(self, prompt: str, asked: int) -> str:
        self.prompts.append(prompt)
        if not prompt.endswith(CUE):
            return chain(prompt)
        return f" {len(prompt.removesuffix(CUE)) % 10}."


def test_each_thought_is_cut_after_so_many_tokens() -> None:
    lm = Thinker()
    results, _, records = run(lm, make_config(**BUDGETED))
    question, thought = "0 + 0", chain("0 + 0")
    assert [p for p in lm.prompts if p.startswith(question) and p.endswith(CUE)] == [
        question + kept + CUE for kept in ("", thought[:6], thought)
    ]
    found = records[0].budgets
    assert [b.budget for b in found] == [0, 6, 999]
    assert {b.n_tokens for b in found} == {len(thought)}
    digits = [str((len(question) + n) % 10) for n in (0, 6, len(thought))]
    assert [b.confidence for b in found] == [pytest.approx(probability(d)) for d in digits]
    assert [b.correct for b in found] == [int(d == "0") for d in digits]
    assert {b.outcome for b in found} == {"answered"}
    assert not any("budget" in key for key in results)  # the report shows them


def test_a_thought_that_was_taken_away_is_cut_and_closed() -> None:
    thought = "<think>one two three</think>\n"
    known = {"thought": thought, "thought_ends": np.arange(1, len(thought) + 1)}
    lm = Thinker(**known, thought_log_probs=np.full(len(thought), -1.0))
    _, _, records = run(lm, make_config(**BUDGETED), limit=1)
    closing = "</think>\n"
    assert [p for p in lm.prompts if p.endswith(CUE)] == [
        "0 + 0" + kept + CUE for kept in (closing, "<think" + closing, thought)
    ]
    assert {b.n_tokens for b in records[0].budgets} == {len(thought)}


def test_thoughts_whose_tokens_are_unknown_are_not_cut(harness_log: pytest.LogCaptureFixture) -> None:
    _, _, records = run(Thinker(token_ends=None), make_config(**BUDGETED))
    assert {record.budgets for record in records} == {None}
    assert "some thoughts could not be cut, since their tokens are not known" in harness_log.text


def test_an_answer_that_is_not_found_is_counted() -> None:
    lm = Scripted(lambda prompt, n: " unsure" if prompt.endswith(CUE) else chain(prompt), probability)
    _, _, records = run(lm, make_config(**BUDGETED), limit=2)
    assert [(b.outcome, b.correct, b.confidence) for b in records[0].budgets] == [("not_found", 0, None)] * 3


def test_json_round_trip() -> None:
    _, _, records = run(Thinker(), make_config(**BUDGETED), limit=1)
    assert Record.from_dict(json.loads(json.dumps(records[0].to_dict(), allow_nan=False))) == records[0]


@pytest.mark.parametrize("value", [[3, 1], [1, 1], [-1], [0.5], 3, [True]])
def test_what_is_no_list_of_budgets_is_refused(value: Any) -> None:
    with pytest.raises(TaskError, match=r"budgets is .*, not a list of whole numbers like \[0, 64, 256\]"):
        CalibratedTask(make_config(**options(budgets=value)))
