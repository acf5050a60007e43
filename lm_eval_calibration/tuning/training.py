"""Training by transformers' Trainer: checkpoints, resuming, distribution and progress are its own."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from transformers import Trainer, TrainingArguments

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning.adapter import ALPHA, DROPOUT, PROBE, RANK, adapted_modules, quiet
from lm_eval_calibration.tuning.examples import Collator, Examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.grading import NO_CHOICE
from lm_eval_calibration.tuning.loss import answers_stay, cross_entropy, judge, mean_divergence
from lm_eval_calibration.tuning.settings import Protocol
from lm_eval_calibration.tuning.validation import judged, validation

CHECKPOINTS = "checkpoints"

MOST_STEPS = 200
"""Steps after which the adapter is validated and kept, if an epoch is longer."""

_WHOLE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint."""


class CalibrationTrainer(Trainer):  # type: ignore[misc]
    """Minimises cross-entropy of P(true) plus Jensen-Shannon divergence of the answers from the frozen model's.

    Args:
        forward: calls the model.
        probe: judges the last hidden state in the query's place; None to judge by the query.
        **options: of the Trainer.
    """

    loss_is_scaled_for_ga = False  # it is a mean over the batch

    def __init__(self, *, forward: Forward, probe: torch.nn.Module | None, **options: Any) -> None:
        super().__init__(**options)
        self.model_accepts_loss_kwargs = False  # the same for transformers before loss_is_scaled_for_ga
        self.forward, self.probe = forward, probe

    def compute_loss(
        self, model: Any, inputs: Mapping[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch in nats and, if wanted, how its answers are judged.

        In validation the loss is the cross-entropy alone: whether answers stay is seen by their accuracy there. One
        that the model wrote counts as right if it was and every token of it is still the most probable one.
        """
        seen = self.forward(model, inputs)
        found = judge(inputs, seen.query, seen.choices)
        if self.probe is not None:
            found = found._replace(log_odds=self.probe(seen.hidden))
        loss = cross_entropy(found.log_odds, inputs["labels"])
        written = inputs["gold"] == NO_CHOICE
        if model.training or written.any():
            base = self.accelerator.unwrap_model(model)
            frozen = self.forward.frozen(base, inputs) if len(inputs["answer"]) else seen.answer  # all are empty
            answers = seen.answer, frozen, inputs["answer"][:, 2], len(inputs["labels"])
            if model.training:
                loss = loss + mean_divergence(*answers)
            else:
                still_right = answers_stay(*answers) * inputs["labels"]
                found = found._replace(answers_right=torch.where(written, still_right, found.answers_right))
        return (loss, {"loss": loss, **found._asdict()}) if return_outputs else loss


def train(trainer: CalibrationTrainer, directory: Path) -> list[dict[str, float]]:
    """Train, going on from the last whole checkpoint if there is one, and return the validations, the first untuned.

    Raises:
        UserError: a checkpoint can't be written; what can't be used of it is removed, the one before stays.
    """
    if trainer.is_world_process_zero():
        _remove(_unfinished(directory))  # what a killed run left
    checkpoint = last_checkpoint(directory)
    trainer.args.eval_on_start = checkpoint is None  # what was found then is in the checkpoint's history
    if checkpoint is not None and trainer.is_world_process_zero():
        typer.echo(f"goes on from {checkpoint.name} in {directory}")
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Exception as error:
        if not (cut := _unfinished(directory)):
            raise
        _remove(cut)
        typer.echo(err=True)  # ends the line of the progress bar
        last = last_checkpoint(directory)
        kept = f"{last} is whole, and the same command goes on from it" if last else "none was written before"
        raise UserError(f"the checkpoint {cut[0]} can't be written: {error}; {kept}") from error
    return [validation(entry) for entry in trainer.state.log_history if "eval_auroc" in entry]


def last_checkpoint(directory: Path) -> Path | None:
    """Return the last checkpoint that is whole."""
    whole = [path for path in directory.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=_step, default=None)


def _unfinished(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*checkpoint-*") if path.is_dir() and not _is_whole(path)]


def _remove(checkpoints: Sequence[Path]) -> None:
    for path in checkpoints:
        shutil.rmtree(path, ignore_errors=True)


def _is_whole(checkpoint: Path) -> bool:
    """Whether all of it was written: a run may have been killed while it wrote the last file."""
    try:
        json.loads((checkpoint / _WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def arguments(protocol: Protocol, directory: Path, n_examples: int, model: Any) -> TrainingArguments:
    """Return the Trainer's arguments.

    Args:
        protocol: what the user asked for.
        directory: folder of the checkpoints.
        n_examples: examples of an epoch.
        model: to train.
    """
    from accelerate import PartialState

    batch = protocol.batch_size * protocol.gradient_accumulation * PartialState().num_processes
    every = min(MOST_STEPS, max(1, -(-n_examples // batch)))
    return TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=protocol.epochs,
        per_device_train_batch_size=protocol.batch_size,
        per_device_eval_batch_size=protocol.batch_size,
        gradient_accumulation_steps=protocol.gradient_accumulation,
        learning_rate=protocol.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=0.0,
        optim="adamw_torch",
        bf16=model.dtype == torch.bfloat16,
        use_cpu=model.device.type == "cpu",
        seed=protocol.seed,
        data_seed=protocol.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="nll",
        greater_is_better=False,
        logging_steps=max(1, every // 10),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        ddp_find_unused_parameters=False,
    )


def make_trainer(
    model: Any,
    forward: Forward,
    examples: Examples,
    protocol: Protocol,
    directory: Path,
) -> CalibrationTrainer:
    """Return a trainer.

    Args:
        model: with an adapter.
        forward: calls it.
        examples: those to learn from and to validate by.
        protocol: what the user asked for.
        directory: folder of the checkpoints.
    """
    probe = model.get_submodule(PROBE) if protocol.method == "lora-probe" else None
    return CalibrationTrainer(
        forward=forward,
        probe=probe,
        model=model,
        args=arguments(protocol, directory, len(examples.fit), model),
        data_collator=Collator(examples.pad_token_id),
        train_dataset=examples.fit,
        eval_dataset=examples.held_out,
        compute_metrics=lambda found: judged(found.predictions[0], found.predictions[1], found.label_ids),
    )


def how(trainer: CalibrationTrainer) -> dict[str, Any]:
    """Return what of the training the protocol doesn't say."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {
        "rank": RANK,
        "alpha": ALPHA,
        "dropout": DROPOUT,
        "adapted_modules": adapted_modules(model),
        "optimizer": "AdamW, cosine, no warm-up, no weight decay",
        "loss": "cross-entropy of P(true) + Jensen-Shannon divergence of the answer's tokens from the frozen model",
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step,
        "processes": trainer.args.world_size,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
