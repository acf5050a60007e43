"""Graded answers as rows of tokens, with the positions in them from which the loss is computed.

The tokens are those that the harness makes of the same prompts. The answer mostly stands in the query about it, so one
row has both; what no row of an example begins with gets a row of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from lm_eval_calibration.backends.tokens import encode_pair
from lm_eval_calibration.tasks.confidences.p_true_query import Query
from lm_eval_calibration.tuning.questions import Answer


class Target(NamedTuple):
    """A token whose probability is wanted.

    Attributes:
        position: of the input after which the token comes.
        token: its id.
        option: index of the continuation that the token belongs to.
    """

    position: int
    token: int
    option: int


class Row(NamedTuple):
    """A sequence of tokens.

    Attributes:
        tokens: inputs of the model.
        query: tokens of the query's continuations.
        choices: tokens of the choices.
        answer: positions at which the model's predictions are to stay as they are.
    """

    tokens: tuple[int, ...]
    query: list[Target]
    choices: list[Target]
    answer: list[int]


class Example(NamedTuple):
    """One graded answer.

    Attributes:
        rows: at least one, that of the query first.
        correct: whether the answer is right.
        gold: index of the gold choice; -1 where there are no choices.
        true: index of the query's continuation that calls the answer right.
        nested: whether the tokens of the other continuation begin those of this one (see ``Query.p_true``).
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
        pad_token_id: fills up rows.
    """

    fit: list[Example]
    held_out: list[Example]
    pad_token_id: int


def make_examples(answers: Sequence[Answer], query: Query, lm: Any) -> Examples:
    """Return graded answers as tokens; those of held-out docs have the tokens of all choices, too."""
    parts: dict[bool, list[Example]] = {False: [], True: []}
    for answer in answers:
        held_out = answer.question.held_out
        parts[held_out].append(make_example(answer, query, lm, lm.max_length, with_choices=held_out))
    return Examples(parts[False], parts[True], lm.tokenizer.pad_token_id or 0)


def make_example(answer: Answer, query: Query, lm: Any, max_length: int, *, with_choices: bool) -> Example:
    """Return a graded answer as tokens.

    Args:
        answer: the answer.
        query: wording of the query.
        lm: the harness's backend, which makes the tokens.
        max_length: tokens that the model takes; longer rows lose their beginning, as in the harness.
        with_choices: whether the probabilities of all choices are wanted, too.
    """
    question = answer.question
    if answer.correct is None:
        raise ValueError(f"doc {question.doc_id} of {question.task} is neither right nor wrong")
    rows: list[Row] = []

    def add_targets(kind: str, pairs: Iterable[tuple[str, str]]) -> list[list[int]]:
        """Put continuations into rows; return their tokens."""
        continuations = []
        for option, pair in enumerate(pairs):
            context, continuation = encode_pair(lm, *pair)
            row, first = _row(rows, context, continuation, max_length)
            getattr(row, kind).extend(Target(first + j, token, option) for j, token in enumerate(continuation))
            continuations.append(continuation)
        return continuations

    continuations = add_targets("query", answer.query)
    context, tokens = encode_pair(lm, *answer.pair)
    if tokens:  # an empty answer has none to keep
        row, first = _row(rows, context, tokens, max_length)
        row.answer.extend(range(first, first + len(tokens)))
    if with_choices:
        add_targets("choices", question.choices)
    true, false = continuations[query.true], continuations[1 - query.true]
    nested = len(true) > len(false) and true[: len(false)] == false
    return Example(tuple(rows), answer.correct, question.gold, query.true, nested)


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
        pad_token_id: fills up rows on the right, where nothing looks at it.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch.

        Returns:
            ``labels`` [n] whether each answer is right (first, since the Trainer counts its rows); ``gold``, ``true``,
            ``nested`` [n]; ``input_ids`` and ``attention_mask`` [n_rows, length]; ``query`` and ``choices``
            [n_targets, 5]: row, position, token, example, option; ``answer`` [n_positions, 3]: row, position, example;
            ``query_end`` [n, 2]: row and position after which the reply to the query comes.
        """
        rows_of_examples = [(i, row) for i, example in enumerate(examples) for row in example.rows]
        rows = [(number, i, row) for number, (i, row) in enumerate(rows_of_examples)]
        tokens = [torch.tensor(row.tokens) for _, _, row in rows]
        targets = {
            name: [(number, t.position, t.token, i, t.option) for number, i, row in rows for t in getattr(row, name)]
            for name in ("query", "choices")
        }
        answer = [(number, position, i) for number, i, row in rows for position in row.answer]
        first_row = np.cumsum([0, *(len(example.rows) for example in examples)]).tolist()
        query_end = [(first_row[i], example.rows[0].query[0].position) for i, example in enumerate(examples)]
        fields = (("labels", "correct"), ("gold", "gold"), ("true", "true"), ("nested", "nested"))
        return {
            **{name: torch.tensor([int(getattr(example, field)) for example in examples]) for name, field in fields},
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(of_row) for of_row in tokens], batch_first=True),
            **{name: torch.tensor(found, dtype=torch.long).reshape(-1, 5) for name, found in targets.items()},
            "answer": torch.tensor(answer, dtype=torch.long).reshape(-1, 3),
            "query_end": torch.tensor(query_end, dtype=torch.long),
        }
