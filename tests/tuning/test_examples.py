"""Training sees the tokens that the harness scores, and reads the same numbers off them."""

from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from tiny import make_rows

from lm_eval_calibration.backends import token_scores
from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
from lm_eval_calibration.tuning.examples import Collator, Example, make_example
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.loss import option_log_likelihoods, predict
from lm_eval_calibration.tuning.questions import Answer, ChoiceQuestion


def make_graded(name: str, n: int = 12) -> list[Answer]:
    """Docs with choices of one or several tokens, answered in turn by each choice."""
    query, graded = QUERIES[name], []
    for i, row in enumerate(make_rows(n)):
        context = f"{row['question']}\nAnswer:"
        choices = tuple((context, f" {choice}") for choice in row["choices"])
        queries = tuple(tuple((query.prompt(*choice), c) for c in query.continuations) for choice in choices)
        question = ChoiceQuestion("letters", i, str(i), False, choices, queries, row["answer"])
        log_likelihoods = tuple(0.0 if k == i % len(choices) else -1.0 for k in range(len(choices)))
        graded.append(question.answer(log_likelihoods))
    return graded


def harness_log_likelihoods(lm: Any, pairs: list[tuple[str, str]]) -> list[float]:
    requests = [Instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(pairs)]
    return [score[0] for score in token_scores(lm, requests)]


def to_examples(lm: Any, graded: list[Answer], name: str, max_length: int = 10_000) -> list[Example]:
    return [make_example(g, QUERIES[name], lm, max_length, with_choices=True) for g in graded]


@pytest.mark.parametrize("picks", [True, False])
@pytest.mark.parametrize("name", QUERIES)
def test_p_true_and_choices_are_those_of_the_harness(gpt2_lm: Any, name: str, picks: bool) -> None:
    graded, query = make_graded(name), QUERIES[name]
    examples = to_examples(gpt2_lm, graded, name)
    forward = Forward(gpt2_lm, examples[0].rows[0].tokens)
    assert forward.picks  # a GPT-2's output layer can be shown some positions only
    forward.picks = picks
    batch = Collator(0)(examples)
    with torch.no_grad():
        seen = forward(gpt2_lm.model, batch)
    found = predict(batch, seen.query, seen.choices)
    choices = option_log_likelihoods(seen.choices, batch["choices"], len(examples)).numpy()
    for i, g in enumerate(graded):
        said = harness_log_likelihoods(gpt2_lm, list(g.query))
        p = query.p_true(said, nested=examples[i].nested)
        assert float(torch.sigmoid(found.log_odds[i])) == pytest.approx(p, abs=1e-5)
        of_choices = harness_log_likelihoods(gpt2_lm, list(g.question.choices))
        assert choices[i][: len(of_choices)] == pytest.approx(of_choices, abs=1e-4)
        assert found.answers_right[i] == (int(np.argmax(of_choices)) == g.question.gold)


def test_an_answer_stands_in_the_row_of_its_query(gpt2_lm: Any) -> None:
    graded = make_graded("kapoor")
    for example, g in zip(to_examples(gpt2_lm, graded, "kapoor"), graded, strict=True):
        tokens = gpt2_lm.tok_encode(g.pair[1])
        first, *others = (row for row in example.rows if row.answer)
        assert not others
        assert [first.tokens[position + 1] for position in first.answer] == tokens
        assert example.nested  # a tokenizer of bytes spells ii as i and i
        assert len({row.tokens for row in example.rows}) == len(example.rows)


def test_what_no_row_begins_with_gets_a_row_of_its_own(gpt2_lm: Any) -> None:
    (graded,) = make_graded("kapoor", 1)
    graded = graded._replace(query=tuple((f"Else. {c}", s) for c, s in graded.query))
    (example,) = to_examples(gpt2_lm, [graded], "kapoor")
    rows = [row for row in example.rows if row.answer]
    assert rows != [example.rows[0]]
    assert example.rows[0].query
    batch = Collator(0)([example, example])
    with torch.no_grad():
        seen = Forward(gpt2_lm, example.rows[0].tokens)(gpt2_lm.model, batch)
    odds = predict(batch, seen.query, seen.choices).log_odds
    assert float(odds[0]) == pytest.approx(float(odds[1]), abs=1e-5)


def test_long_prompts_lose_their_beginning_as_in_the_harness(gpt2_lm: Any) -> None:
    lengthy = [g._replace(query=tuple(("word " * 80 + c, s) for c, s in g.query)) for g in make_graded("kadavath", 2)]
    examples = to_examples(gpt2_lm, lengthy, "kadavath", gpt2_lm.max_length)
    assert max(len(row.tokens) for example in examples for row in example.rows) == gpt2_lm.max_length == 256
    batch = Collator(0)(examples)
    with torch.no_grad():
        seen = Forward(gpt2_lm, examples[0].rows[0].tokens)(gpt2_lm.model, batch)
    found = predict(batch, seen.query, seen.choices)
    for odds, g in zip(found.log_odds, lengthy, strict=True):
        said = harness_log_likelihoods(gpt2_lm, list(g.query))
        assert float(torch.sigmoid(odds)) == pytest.approx(QUERIES["kadavath"].p_true(said), abs=1e-5)
