import random
from itertools import pairwise

import pytest

from lm_eval_calibration.backends.hf.prefixes import Plan, Step


def few_shot_rows(subjects: int = 3, docs: int = 20, seed: int = 0) -> list[tuple[int, ...]]:
    """Rows as few-shot prompts make them: a common line, a subject's examples, a question, some with two choices."""
    rng = random.Random(seed)
    rows = []
    for _ in range(subjects):
        examples = [7, 7, 7, *(rng.randrange(50) for _ in range(60))]
        for _ in range(docs):
            question = [*examples, *(rng.randrange(50) for _ in range(rng.randrange(3, 25)))]
            rows += [(*question, 1), (*question, 2, 3)]
    rng.shuffle(rows)
    return list(dict.fromkeys(rows))


def growing_rows() -> list[tuple[int, ...]]:
    return [tuple(range(5, 5 + n)) for n in range(2, 300, 3)]


def random_rows(seed: int) -> list[tuple[int, ...]]:
    """From an alphabet of two: rows share beginnings of all lengths, and some are beginnings of others."""
    rng = random.Random(seed)
    return list({tuple(rng.randrange(2) for _ in range(rng.randrange(1, 40))) for _ in range(60)})


ROWS = {"few shots": few_shot_rows(), "growing": growing_rows(), "random": random_rows(1), "one": [(1, 2, 3)]}


def all_steps(plan: Plan) -> list[list[Step]]:
    return [list(plan.steps(family)) for family in plan.families]


@pytest.mark.parametrize("most", [1, 8, 40, 1000])
@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_every_token_sees_its_own_row_s_beginning_and_nothing_else(rows: list[tuple[int, ...]], most: int) -> None:
    rng = random.Random(5)
    n_scored = [rng.randrange(1, min(len(row), 4) + 1) for row in rows]
    plan = Plan(rows, n_scored, most)
    scored = []
    for steps in all_steps(plan):
        cache: list[tuple[int, ...]] = []  # for each cached token the row up to and with it
        for step in steps:
            assert step.base <= len(cache)
            assert len(step.tokens) == len(step.positions) == len(step.ends)
            del cache[step.base :]
            start = cache[-1] if cache else ()
            assert [len(text) for text in cache] == list(range(1, step.base + 1))
            new: list[tuple[int, ...]] = []
            for i, (token, position) in enumerate(zip(step.tokens, step.positions, strict=True)):
                seen = [j for j in range(i) if j <= i <= step.ends[j]]
                text = (*start, *(step.tokens[j] for j in seen), token)
                assert [step.positions[j] for j in seen] == list(range(step.base, position))
                assert len(text) == position + 1
                new.append(text)
            for row, spots in step.rows:
                assert [new[spot] for spot in spots] == [
                    rows[row][:n] for n in range(len(rows[row]) - n_scored[row] + 1, len(rows[row]) + 1)
                ]
                scored.append(row)
            # What stays for later is what stands in one piece: the cached tokens and the first row.
            chain = [i for i, position in enumerate(step.positions) if position == step.base + i]
            cache += [new[i] for i in chain if i == 0 or i - 1 in chain]
    assert sorted(scored + plan.alone) == list(range(len(rows)))


def test_packs_hold_at_most_the_tokens_they_may() -> None:
    rows = few_shot_rows()
    for steps in all_steps(Plan(rows, [1] * len(rows), 100)):
        assert max(len(step.tokens) for step in steps) <= 100


def test_a_subject_s_examples_are_computed_once() -> None:
    rows = few_shot_rows(subjects=4, docs=30)
    distinct = {row[:n] for row in rows for n in range(1, len(row) + 1)}  # as many as the trie has nodes
    computed = sum(len(step.tokens) for steps in all_steps(Plan(rows, [2] * len(rows), 120)) for step in steps)
    everything = sum(map(len, rows))
    assert computed < 1.25 * len(distinct) < 0.3 * everything


def test_a_question_stands_once_for_all_its_choices() -> None:
    question = tuple(range(30))
    rows = [(*question, 40 + i, 50, 60) for i in range(4)]
    (steps,) = all_steps(Plan(rows, [4] * 4, 100))
    (step,) = steps
    plan = Plan(rows, [4] * 4, 100)
    assert len(step.tokens) == plan.tokens == 30 + 4 * 3
    assert plan.saved == 3 * 30
    assert {spots[0] for _, spots in step.rows} == {29}  # the question's last token tells of all four


def test_rows_that_share_nothing_are_left_alone() -> None:
    rows = [(i, *range(100 * i, 100 * i + 40)) for i in range(1, 6)]
    plan = Plan(rows, [1] * 5, 200)
    assert plan.families == []
    assert plan.alone == [0, 1, 2, 3, 4]
    assert Plan([], [], 10).families == []


def test_rows_that_share_a_token_save_it() -> None:
    rows = [(1, *range(100 * i, 100 * i + 40)) for i in range(1, 6)]
    plan = Plan(rows, [1] * 5, 300)
    assert (plan.saved, plan.alone) == (4, [])
    assert sum(len(step.tokens) for step in plan.all_steps()) == 1 + 5 * 40


@pytest.mark.parametrize("most", [100, 150, 333])
def test_a_family_s_packs_are_of_like_sizes(most: int) -> None:
    rows = few_shot_rows(subjects=1, docs=60)
    sizes = [len(step.tokens) for step in Plan(rows, [1] * len(rows), most).all_steps() if step.rows]
    assert max(sizes) <= min(most, sum(sizes) / len(sizes) + 2 * 28)  # 28 tokens: the longest question


def test_the_longest_row_s_family_comes_first() -> None:
    rows = few_shot_rows(subjects=5)
    rows = [tuple(token + 1000 * row[3] for token in row) for row in rows]  # nothing shared between subjects
    plan = Plan(rows, [1] * len(rows), 64)
    longest = [max(len(rows[r]) for step in steps for r, _ in step.rows) for steps in all_steps(plan)]
    assert len(longest) > 1
    assert all(a >= b for a, b in pairwise(longest))


def test_contexts_that_grow_by_a_line_nest_deeply_without_recursion() -> None:
    rows = [tuple(range(17 * n)) for n in range(1, 300)]
    plan = Plan(rows, [1] * len(rows), 64)
    assert sum(len(step.tokens) for steps in all_steps(plan) for step in steps) < 1.5 * len(rows[-1])
