"""What stock code tasks load from a hub as ``code_eval``: here our own judge, so nothing is fetched.

Their functions (``pass_at_k`` and others) stay the harness's own. A stock task of the same run keeps what it loaded.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_calibration.code_judge import Program, run_programs

NAME = "code_eval"

_PENDING: ContextVar[dict[Program, None] | None] = ContextVar("lm_eval_calibration_programs", default=None)
"""Programs that are collected, in order."""


class CodeEval:
    """The part of that metric's interface that the harness's tasks use."""

    def __init__(self) -> None:
        self._passed: dict[Program, bool] = {}

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], dict[int, list[Any]]]:
        """Return ``pass@k`` for each k that there are enough candidates for, and each candidate's outcome.

        Args:
            references: [n] code that checks the candidates of a problem.
            predictions: [n] the candidates.
            k: how many candidates of a problem may be tried.
        """
        programs: list[list[Program]] = [
            [(candidate, check) for candidate in candidates]
            for candidates, check in zip(predictions, references, strict=True)
        ]
        passed = self._verdicts([program for of_problem in programs for program in of_problem])
        outcomes = [[passed[program] for program in of_problem] for of_problem in programs]
        scores = {
            f"pass@{n}": float(np.mean([_pass_at_k(len(one), sum(one), n) for one in outcomes]))
            for n in k
            if all(len(one) >= n for one in outcomes)
        }
        details = {i: [(j, {"passed": p}) for j, p in enumerate(one)] for i, one in enumerate(outcomes)}
        return scores, details

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Only note the programs that come; at the end judge them all, several at a time."""
        with _noting_programs() as programs:
            yield
        self._passed = {program: passed for program, passed in self._passed.items() if program in programs}
        self._judge(list(programs))

    def _verdicts(self, programs: Sequence[Program]) -> dict[Program, bool]:
        if (pending := _PENDING.get()) is not None:
            pending |= dict.fromkeys(programs)
            return dict.fromkeys(programs, False)
        self._judge(programs)
        return self._passed

    def _judge(self, programs: Sequence[Program]) -> None:
        new = [program for program in dict.fromkeys(programs) if program not in self._passed]
        verdicts = run_programs(new, progress=len(new) > 1)
        self._passed |= {program: verdict.passed for program, verdict in zip(new, verdicts, strict=True)}


CODE_EVAL = CodeEval()


@contextmanager
def _noting_programs() -> Iterator[dict[Program, None]]:
    programs: dict[Program, None] = {}
    token = _PENDING.set(programs)
    try:
        yield programs
    finally:
        _PENDING.reset(token)


@contextmanager
def local_code_eval(directory: Path) -> Iterator[None]:
    """Let the task files in a directory load ours as they are imported, whatever has been imported of them before."""
    import evaluate

    prefix = ".".join(("lm_eval", "tasks", directory.name, ""))
    load = evaluate.load

    def load_ours(path: str, *args: Any, **options: Any) -> Any:
        return CODE_EVAL if path == NAME else load(path, *args, **options)

    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(prefix)}
    evaluate.load = load_ours
    try:
        with _noting_programs():  # the files try it out as they are imported: a program whose outcome nobody looks at
            yield
    finally:
        evaluate.load = load
        for name in [name for name in sys.modules if name.startswith(prefix)]:
            del sys.modules[name]
        sys.modules.update(before)


def _pass_at_k(n: int, n_passed: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the probability that one of k candidates drawn of n passes. arXiv:2107.03374."""
    if n - n_passed < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - n_passed + 1, n + 1)))
