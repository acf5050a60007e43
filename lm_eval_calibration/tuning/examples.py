"""Graded answers as rows of tokens, with the places in them from which the loss is computed.

The tokens are those that the harness makes of the same prompts. The answer mostly stands in the query about it, so one
row has both; what no row of an example begins with gets a row of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lm_eval_calibration.tasks.confidences.p_true_query import Query
from lm_eval_calibration.tuning.grading import Graded

Tokens = tuple[int, ...]
Encode = Callable[[str, str], tuple[list[int], list[int]]]


class Spot(NamedTuple):
    """A place whose token distribution is wanted.

    Attributes:
        position: of the input after which the token comes.
        token: the one whose probability is wanted.
        option: index of the continuation that the token belongs to.
    """

    position: int
    token: int
    option: int


class Row(NamedTuple):
    """A sequence of tokens.

    Attributes:
        tokens: inputs of the model.
        query: places of the query's continuations.
        choices: places of the choices.
        answer: positions at which the model's answer is to stay as it is.
    """

    tokens: Tokens
    query: list[Spot]
    choices: list[Spot]
    answer: list[int]


class Example(NamedTuple):
    """One graded answer.

    Attributes:
        rows: at least one, that of the query first.
        correct: whether the answer is right.
        gold: index of the right choice; -1 where there are no choices.
        true: index of the query's continuation that calls the answer right.
        nested: whether the tokens of the other one begin those of this (see ``Query.p_true``).
    """

    rows: tuple[Row, ...]
    correct: int
    gold: int
    true: int
    nested: bool


class Examples(NamedTuple):
    """What a model is tuned on.

    Attributes:
        fit: to learn from.
        held_out: to validate by.
        pad_token_id: what rows are filled up with.
    """

    fit: list[Example]
    held_out: list[Example]
    pad_token_id: int


def make_examples(graded: Sequence[Graded], query: Query, lm: Any) -> Examples:
    """Return graded answers as tokens; of held-out docs the probabilities of all choices are wanted, too."""
    parts: dict[bool, list[Example]] = {False: [], True: []}
    for g in graded:
        held_out = g.question.held_out
        parts[held_out].append(make_example(g, query, encoder(lm), lm.max_length, with_choices=held_out))
    return Examples(parts[False], parts[True], lm.tokenizer.pad_token_id or 0)


def make_example(graded: Graded, query: Query, encode: Encode, max_length: int, *, with_choices: bool) -> Example:
    """Return a graded answer as tokens.

    Args:
        graded: the answer.
        query: wording of the query.
        encode: makes the tokens of a context and of its continuation.
        max_length: tokens that the model takes; longer rows lose their beginning, as in the harness.
        with_choices: whether the probabilities of all choices are wanted, too.
    """
    if graded.correct is None:
        raise ValueError(f"doc {graded.question.doc_id} of {graded.question.task} is neither right nor wrong")
    rows: list[Row] = []
    asked = [encode(*pair) for pair in graded.query]
    for option, (context, continuation) in enumerate(asked):
        row, first = _row(rows, context, continuation, max_length)
        row.query.extend(Spot(first + j, token, option) for j, token in enumerate(continuation))
    context, answer = encode(*graded.answered)
    if answer:  # an empty one has no tokens to keep
        row, first = _row(rows, context, answer, max_length)
        row.answer.extend(range(first, first + len(answer)))
    for option, pair in enumerate(graded.choices if with_choices else ()):
        context, continuation = encode(*pair)
        row, first = _row(rows, context, continuation, max_length)
        row.choices.extend(Spot(first + j, token, option) for j, token in enumerate(continuation))
    true, false = asked[query.true][1], asked[1 - query.true][1]
    nested = len(true) > len(false) and true[: len(false)] == false
    return Example(tuple(rows), graded.correct, graded.gold, query.true, nested)


def _row(rows: list[Row], context: list[int], continuation: list[int], max_length: int) -> tuple[Row, int]:
    """The row that begins with these inputs, a new one if there is none, and the position before the continuation."""
    inputs = tuple([*context, *continuation[:-1]][-max_length:])
    first = len(inputs) - len(continuation)
    for index, row in enumerate(rows):
        if row.tokens[: len(inputs)] == inputs:
            return row, first
        if inputs[: len(row.tokens)] == row.tokens:
            rows[index] = row._replace(tokens=inputs)
            return rows[index], first
    rows.append(Row(inputs, [], [], []))
    return rows[-1], first


class Collator:
    """Puts examples into one batch of tensors.

    Args:
        pad_token_id: what fills rows up, on the right, where nothing looks at it.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch.

        Returns:
            ``labels`` [n] whether each answer is right (first, since the Trainer counts its rows); ``gold``, ``true``,
            ``nested`` [n]; ``input_ids`` and ``attention_mask`` [n_rows, length]; ``query`` and ``choices``
            [n_spots, 5]: row, position, token, example, option; ``answer`` [n_positions, 3]: row, position, example;
            ``asked`` [n, 2]: row and position from which the query is answered.
        """
        rows = [(i, row) for i, example in enumerate(examples) for row in example.rows]
        length = max(len(row.tokens) for _, row in rows)
        ids = np.full((len(rows), length), self.pad_token_id)
        mask = np.zeros_like(ids)
        for number, (_, row) in enumerate(rows):
            ids[number, : len(row.tokens)], mask[number, : len(row.tokens)] = row.tokens, 1
        first_row = np.cumsum([0, *(len(example.rows) for example in examples)])
        spots = {
            name: [
                (number, spot.position, spot.token, i, spot.option)
                for number, (i, row) in enumerate(rows)
                for spot in getattr(row, name)
            ]
            for name in ("query", "choices")
        }
        answer = [(number, position, i) for number, (i, row) in enumerate(rows) for position in row.answer]
        asked = [(int(first_row[i]), example.rows[0].query[0].position) for i, example in enumerate(examples)]
        return {
            **{
                name: torch.tensor([int(getattr(example, field)) for example in examples])
                for name, field in (("labels", "correct"), ("gold", "gold"), ("true", "true"), ("nested", "nested"))
            },
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            **{name: torch.tensor(found, dtype=torch.long).reshape(-1, 5) for name, found in spots.items()},
            "answer": torch.tensor(answer, dtype=torch.long).reshape(-1, 3),
            "asked": torch.tensor(asked, dtype=torch.long),
        }


def encoder(lm: Any) -> Encode:
    """The harness's own tokenization of a context and its continuation."""

    def encode(context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair: tuple[list[int], list[int]] = lm._encode_pair(context, continuation)
        return pair

    return encode
