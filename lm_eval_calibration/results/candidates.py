"""What a run knows of other answers than the given ones: options in the answer's place, and sampled answers."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from lm_eval_calibration.decisions.candidates import Candidates, of_options, of_samples
from lm_eval_calibration.metrics.validation import FloatArray
from lm_eval_calibration.records import GenerationRecord
from lm_eval_calibration.results.reading import Lines
from lm_eval_calibration.results.task_docs import TaskDocs

NONE = np.empty(0)


def candidates_of(tasks: Sequence[TaskDocs], rows: Sequence[Sequence[int]]) -> dict[str, Candidates]:
    """Return the candidates of some generated answers, [N] task after task; nothing where none has any.

    A doc whose answer is none of its options, or that was not sampled several times, has none where others have.

    Args:
        tasks: of the run.
        rows: of each task its docs.
    """
    n_docs, first = sum(map(len, rows)), 0
    probs: list[FloatArray] = [NONE] * n_docs
    counts: list[FloatArray] = [NONE] * n_docs
    right, sampled_right = np.full(n_docs, -1), np.full(n_docs, -1)
    for docs, which in zip(tasks, rows, strict=True):
        generated = [row for row, i in enumerate(which, first) if docs.kinds[i] == "generation"]
        records = Lines([docs.locations[which[row - first]] for row in generated], lambda sample: sample.record)
        for row, record in zip(generated, records, strict=True):
            if not isinstance(record, GenerationRecord):  # numbers alone
                continue
            if record.options is not None:
                probs[row] = softmax(record.options.log_likelihoods)
                right[row] = -1 if record.options.gold is None else record.options.gold
            counts[row], sampled_right[row] = _votes(record)
        first += len(which)
    found = of_options(probs, right) if any(map(len, probs)) else {}
    return found | (of_samples(counts, sampled_right) if any(map(len, counts)) else {})


def _votes(record: GenerationRecord) -> tuple[FloatArray, int]:
    """How many samples give each different answer, and which is right, the most frequent of several; -1: none is."""
    votes = record.generation.votes
    correct = {s.answer_hash for s in record.generation.samples if s.has_answer and s.correct == 1}
    ranked = [answer for answer, _ in votes.most_common() if answer in correct]
    answers = list(votes)
    return np.array([votes[answer] for answer in answers], dtype=np.float64), answers.index(ranked[0]) if ranked else -1
