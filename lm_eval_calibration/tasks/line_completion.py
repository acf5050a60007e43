"""Docs of ``code_line_completion_calibration``: one for each line of code that has something in it."""

from collections.abc import Sequence
from typing import Any

from lm_eval_calibration.errors import TaskError


def lines(dataset: Any) -> Any:
    """Return a doc for each non-blank line of each canonical solution, with the prompt and the lines before it.

    The line's indentation stands before it, less its last blank. Without it a model goes on from a newline, which
    its tokenizer joins with the blanks that follow: after a newline by itself it has mostly seen another one.
    """
    from datasets import Dataset

    return Dataset.from_list([line for problem in dataset for line in _lines(problem)])


def _lines(problem: dict[str, Any]) -> list[dict[str, str]]:
    before, docs = problem["prompt"], []
    for line in problem["canonical_solution"].splitlines(keepends=True):
        text = line.rstrip("\r\n")
        if text.strip():
            given = text[: len(text) - len(text.lstrip())][:-1]
            doc = {"before": before + given, "line": text.removeprefix(given), "stripped": text.strip()}
            docs.append({"task_id": problem["task_id"], **doc})
        before += line
    return docs


def edit_similarity(references: Sequence[str], predictions: Sequence[str], **_: Any) -> float:
    """Return 1 - d / (n + m), d the insertions and deletions between two texts of n and m characters; 1 is equal.

    Source: the ratio of RapidFuzz, as CodeXGLUE's line completion reports it (there in percent).
    """
    try:
        from rapidfuzz.distance import Indel
    except ImportError as error:
        raise TaskError("edit_similarity needs: pip install 'lm-eval-calibration[code]'") from error
    return float(Indel.normalized_similarity(references[0].strip(), predictions[0].strip()))
