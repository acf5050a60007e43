"""``lm-eval-calibration run``: the harness's own command with calibration."""

from typing import Annotated

import typer


def run(
    context: typer.Context,
    *,
    no_log_samples: Annotated[
        bool,
        typer.Option(
            "--no_log_samples", help="Don't write `samples_*.jsonl`, from which metrics can be computed again."
        ),
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Log ids, hashes and numbers, and no text of docs, prompts or answers.")
    ] = False,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv", metavar="FILE", help="Your own questions: CSV, TSV, Parquet, JSONL, or a dataset's name."
        ),
    ] = None,
    question: Annotated[str | None, typer.Option(metavar="COLUMN", help="With --csv: column of the question.")] = None,
    options: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN,...", help="With --csv: columns of the options, or one that holds a list of them."
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --csv: column of the right answer.")
    ] = None,
    answers_are: Annotated[
        str | None,
        typer.Option(
            "--answers_are",
            metavar="HOW",
            help="With --csv: text, letter, index_from_0 or index_from_1; told by itself.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="With --csv: column of the docs' groups, for `--by doc.COLUMN`."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD,...", help="With --redact: fields of the docs that are logged, for `--by doc.FIELD`."
        ),
    ] = None,
) -> None:
    """Run the harness with calibration: every flag of `lm_eval run` passes through (see `lm_eval run --help`).

    Add `_calibration` to the name of any multiple-choice task, group or tag, your own (`--include_path`) included.
    Samples go to `lm_eval_results/` unless `--output_path` says otherwise.

    With `--csv` your own questions are the task; columns that are named as usual are found by themselves. The task's
    YAML is written beside the results, for the stock command.

    Example: `lm-eval-calibration run --model hf --model_args pretrained=gpt2 --tasks mmlu_anatomy_calibration`, or
    `lm-eval-calibration run --csv ward.csv --question question --options a,b,c,d --answer answer --group ward
    --model hf --model_args pretrained=gpt2`
    """
    from lm_eval_calibration.cli.harness_command import run as run_harness
    from lm_eval_calibration.cli.own_questions import Questions

    of_csv = {"question": question, "options": options, "answer": answer, "answers_are": answers_are, "group": group}
    if csv is None and (given := [name for name, value in of_csv.items() if value is not None]):
        raise typer.BadParameter(f"--{given[0]} says what is in a file of questions: name it, --csv FILE")
    if keep is not None and not redact:
        raise typer.BadParameter("--keep says what --redact keeps; without --redact everything is logged")
    run_harness(
        context.args,
        log_samples=not no_log_samples,
        redact=redact,
        keep=[] if keep is None else [name.strip() for name in keep.split(",") if name.strip()],
        questions=None if csv is None else Questions(csv, **of_csv),
    )
