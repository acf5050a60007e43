"""``lm-eval-calibration check``: a backend against a reference on a few docs."""

from typing import Annotated

import typer

from lm_eval_calibration.cli.tables import print_table


def check(
    *,
    model: Annotated[str, typer.Option(help="The backend to check, as in `lm_eval run`: vllm, local-completions, hf.")],
    model_args: Annotated[str, typer.Option("--model_args", help="Its arguments, as in `lm_eval run`.")],
    reference: Annotated[
        str, typer.Option(help="What to compare it with: a backend, or `samples_*.jsonl` (or a folder of them).")
    ] = "hf",
    reference_args: Annotated[
        str | None,
        typer.Option("--reference_args", help="Its arguments; by default `pretrained` and `dtype` of --model_args."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Calibrated tasks; by default our own quiz, which needs no data set.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="About how many docs to compare.")] = 20,
) -> None:
    """Send the same few docs to a backend and a reference, and show where their numbers differ most.

    Exit code 0 where they agree, 1 where they don't. Some servers give wrong log-probabilities without any error.

    Example: `lm-eval-calibration check --model local-completions --model_args
    base_url=http://127.0.0.1:8000/v1/completions,model=x,tokenizer=DIR --reference_args pretrained=DIR,dtype=float32`
    """
    from lm_eval_calibration.demo import check as checking

    expected = checking.reference_records(reference, reference_args, model_args, tasks, limit)
    outcome = checking.compare(checking.run_backend(model, model_args, tasks, limit), expected)
    print_table(("", "backend", "reference", "difference", "where"), checking.rows(outcome), n_plain_columns=5)
    typer.echo(checking.verdict(outcome))
    raise typer.Exit(0 if outcome.agrees else 1)
