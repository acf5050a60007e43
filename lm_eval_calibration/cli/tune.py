"""``lm-eval-calibration tune``: calibration tuning."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import IncludePath


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
            help="Learn from this share of the docs that the task evaluates, and keep the rest as the test split; by "
            "default learn from its training split.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=4, help="At most this many docs of each task to grade.")] = 20_000,
    judged: Annotated[int | None, typer.Option(min=1, help="At most this many docs of each task to test on.")] = None,
    num_fewshot: Annotated[int | None, typer.Option("--num_fewshot", min=0, help="As in `lm_eval run`.")] = None,
    apply_chat_template: Annotated[bool, typer.Option("--apply_chat_template", help="As in `lm_eval run`.")] = False,
    include_path: IncludePath = None,
    confirm_run_unsafe_code: Annotated[
        bool,
        typer.Option(
            "--confirm_run_unsafe_code", help="As in `lm_eval run`: programs that the model writes may be run."
        ),
    ] = False,
    method: Annotated[str, typer.Option(help="lora, probe (on the last hidden state) or lora-probe.")] = "lora",
    query: Annotated[str, typer.Option(help="Wording of the query: kapoor or kadavath.")] = "kapoor",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the docs.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Docs in a batch on each device.")] = 4,
    gradient_accumulation: Annotated[
        int, typer.Option("--gradient_accumulation", min=1, help="Batches to one step.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="At the start; it falls to 0.")] = 1e-4,
    target_modules: Annotated[
        str, typer.Option("--target_modules", metavar="NAME,...", help="Modules to adapt, or all-linear.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the adapter, the docs' order and dropout.")] = 0,
    graded: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Use the grades in this folder of another run.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default a GPU where there is one.")] = None,
) -> None:
    """Teach a model, from its own graded answers, how likely they are right (needs the extra `tuning`).

    Trains a LoRA adapter that answers the query of `<name>_p_true_calibration` and leaves the answers as they were;
    prints the commands that test it on docs which it has not learned from. The same command resumes a run that was
    interrupted; `accelerate launch -m lm_eval_calibration tune ...` trains on several devices.

    Example: `lm-eval-calibration tune --model gpt2 --tasks medmcqa --fit-fraction 0.5 --output tuned`
    """
    from lm_eval_calibration.tuning.command import tune as tune_model
    from lm_eval_calibration.tuning.settings import GradingSettings, Protocol

    grading = GradingSettings(
        model=model,
        model_args=model_args,
        tasks=_split(tasks),
        fit_fraction=fit_fraction,
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        include_path=None if include_path is None else str(include_path),
        confirm_run_unsafe_code=confirm_run_unsafe_code,
    )
    protocol = Protocol(
        method=method,
        query=query,
        epochs=epochs,
        batch_size=batch_size,
        gradient_accumulation=gradient_accumulation,
        learning_rate=learning_rate,
        target_modules=_split(target_modules),
        seed=seed,
    )
    tune_model(grading, protocol, output, graded=graded, n_test=judged, device=device)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())
