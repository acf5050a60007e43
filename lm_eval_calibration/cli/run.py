"""``lm-eval-calibration run``: the harness's own command with calibration."""

from typing import Annotated

import typer


def run(
    context: typer.Context,
    no_log_samples: Annotated[
        bool,
        typer.Option(
            "--no_log_samples", help="Don't write `samples_*.jsonl`, from which metrics can be computed again."
        ),
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Log ids, hashes and numbers, and no text of docs, prompts or answers.")
    ] = False,
) -> None:
    """Run the harness with calibration: every flag of `lm_eval run` passes through (see `lm_eval run --help`).

    Add `_calibration` to the name of any multiple-choice task, group or tag, your own (`--include_path`) included.
    Samples go to `lm_eval_results/` unless `--output_path` says otherwise.

    Example: `lm-eval-calibration run --model hf --model_args pretrained=gpt2 --tasks mmlu_anatomy_calibration`
    """
    from lm_eval_calibration.cli.harness_command import run as run_harness

    run_harness(context.args, log_samples=not no_log_samples, redact=redact)
