"""Whether programs that a model wrote do what they should: run apart from everything else, limited in every way.

``run_programs(programs)`` returns a :class:`Verdict` for each program, which passes if it runs to its end: the code
under test with its check appended, a newline between them. Standard library only, no harness; best on Linux.
"""

from lm_eval_calibration.code_judge.running import Limits, Program, Verdict, run_programs

__all__ = ["Limits", "Program", "Verdict", "run_programs"]
