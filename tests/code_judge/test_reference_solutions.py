"""What is right is judged right: solutions that benchmarks come with (all of them: tests/benchmarks)."""

from pathlib import Path

import pytest
from benchmarks.reference_solutions import NOT_IN_PLAIN_PYTHON, solutions

from lm_eval_calibration.code_judge import run_programs


@pytest.mark.slow
@pytest.mark.real_data
def test_every_twelfth_reference_solution_passes_and_none_without_its_code(hub: Path) -> None:
    programs = {name: program for name, program in solutions(hub).items() if name != NOT_IN_PLAIN_PYTHON}
    assert len(programs) == 663
    some = dict(list(programs.items())[::12])
    broken = {name: program.replace("return ", "return None and ") for name, program in some.items()}
    verdicts = run_programs([*some.values(), *list(broken.values())[::4]], progress=False)
    assert {name: v for name, v in zip(some, verdicts, strict=False) if not v.passed} == {}
    assert [v for v in verdicts[len(some) :] if v.passed] == []
