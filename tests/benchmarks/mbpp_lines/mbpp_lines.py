"""Docs of ``mbpp_lines``: one for each line of MBPP's solutions, from the task, a test, and the lines before it."""

from typing import Any

from lm_eval_calibration.tasks.line_completion import lines as lines_of


def lines(dataset: Any) -> Any:
    """Return a doc for each non-blank line of each solution."""
    return lines_of([_problem(problem) for problem in dataset])


def _problem(problem: dict[str, Any]) -> dict[str, str]:
    code = [line.rstrip().replace("\t", "    ") for line in problem["code"].splitlines()]
    asked = f'"""\n{problem["text"]}\n{problem["test_list"][0]}\n"""\n'
    return {"task_id": str(problem["task_id"]), "prompt": asked, "canonical_solution": "\n".join(code)}
