"""All 164 HumanEval and 500 MBPP test solutions through the judge: ``python tests/benchmarks/reference_solutions.py``.

Prints how long that takes and every solution that does not pass. One does not in plain Python either: the tests of MBPP
367 use names that only its ``test_setup_code`` defines, which the stock task leaves out.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pandas

from lm_eval_calibration.code_judge import run_programs

HUB = Path(__file__).parents[3] / "shared" / "data" / "hub"

NOT_IN_PLAIN_PYTHON = "mbpp 367"


def solutions(hub: Path) -> dict[str, str]:
    """Programs with their checks, by benchmark and number, as the stock tasks put them together."""
    human_eval = "openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet"
    mbpp = "google-research-datasets/mbpp/full/test-00000-of-00001.parquet"
    programs = {row["task_id"]: _human_eval(row) for row in pandas.read_parquet(hub / human_eval).to_dict("records")}
    for row in pandas.read_parquet(hub / mbpp).to_dict("records"):
        programs[f"mbpp {row['task_id']}"] = "\n".join([row["code"], *row["test_list"]])
    return programs


def _human_eval(row: dict[str, Any]) -> str:
    return f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})"


def main() -> None:
    programs = solutions(HUB)
    start = time.perf_counter()
    verdicts = dict(zip(programs, run_programs(list(programs.values())), strict=True))
    seconds = time.perf_counter() - start
    failed = {name: verdict for name, verdict in verdicts.items() if not verdict.passed}
    print(f"{len(programs) - len(failed)} of {len(programs)} pass, in {seconds:.1f} s")
    for name, verdict in failed.items():
        print(f"{name}: {verdict.reason}: {verdict.detail}")
    sys.exit(list(failed) != [NOT_IN_PLAIN_PYTHON])


if __name__ == "__main__":
    main()
