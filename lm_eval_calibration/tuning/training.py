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
from lm_eval_calibration.tuning.adapter import ALPHA, DROPOUT, PROBE, RANK, adapted_modules, without_known_warnings
from lm_eval_calibration.tuning.examples import Collator, Examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.loss import answers_stay, cross_entropy, mean_divergence, predict
from lm_eval_calibration.tuning.questions import NO_CHOICE
from lm_eval_calibration.tuning.settings import Protocol
from lm_eval_calibration.tuning.validation import from_log_entry, validation_metrics

CHECKPOINTS = "checkpoints"

MOST_STEPS = 200
"""Steps after which the adapter is validated and saved, if an epoch is longer."""

_LAST_FILE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint."""


class CalibrationTrainer(Trainer):  # type: ignore[misc]
    """Minimises cross-entropy of P(true) plus Jensen-Shannon divergence of the answers from the frozen model's.

    Args:
        forward: calls the model.
        probe: predicts from the last hidden state in the query's place; None to predict by the query.
        **options: of the Trainer.
    """

    loss_is_scaled_for_ga = False  # it is a mean over the batch

    def __init__(self, *, forward: Forward, probe: torch.nn.Module | None, **options: Any) -> None:
        super().__init__(**options)
        self.model_accepts_loss_kwargs = False  # likewise, for transformers before loss_is_scaled_for_ga
        self.forward, self.probe = forward, probe

    def compute_loss(
        self, model: Any, inputs: Mapping[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch in nats and, if wanted, the predictions.

        In validation the loss is the cross-entropy alone: whether answers stay is seen by their accuracy there. One
        that the model wrote counts as right if it was and every token of it is still the most probable one.
        """
        outputs = self.forward(model, inputs)
        predictions = predict(inputs, outputs.query, outputs.choices)
        if self.probe is not None:
            predictions = predictions._replace(log_odds=self.probe(outputs.hidden))
        loss = cross_entropy(predictions.log_odds, inputs["labels"])
        is_open = inputs["gold"] == NO_CHOICE
        if model.training or is_open.any():
            base = self.accelerator.unwrap_model(model)
            frozen = self.forward.frozen(base, inputs) if len(inputs["answer"]) else outputs.answer  # all are empty
            answers = outputs.answer, frozen, inputs["answer"][:, 2], len(inputs["labels"])
            if model.training:
                loss = loss + mean_divergence(*answers)
            else:
                still_right = answers_stay(*answers) * inputs["labels"]
                right = torch.where(is_open, still_right, predictions.answers_right)
                predictions = predictions._replace(answers_right=right)
        return (loss, {"loss": loss, **predictions._asdict()}) if return_outputs else loss


def train(trainer: CalibrationTrainer, directory: Path) -> list[dict[str, float]]:
    """Train, from the last complete checkpoint if there is one, and return the validations, the untuned model's first.

    Raises:
        UserError: a checkpoint can't be written; its remains are removed, the one before stays.
    """
    if trainer.is_world_process_zero():
        _remove(_incomplete(directory))  # what a killed run left
    checkpoint = last_checkpoint(directory)
    trainer.args.eval_on_start = checkpoint is None  # a checkpoint's history begins with that validation
    if checkpoint is not None and trainer.is_world_process_zero():
        typer.echo(f"resumes from {checkpoint.name} in {directory}")
    try:
        with without_known_warnings():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Exception as error:
        if not (incomplete := _incomplete(directory)):
            raise
        _remove(incomplete)
        typer.echo(err=True)  # ends the line of the progress bar
        last = last_checkpoint(directory)
        remedy = f"{last} is complete, and the same command resumes from it" if last else "none was written before"
        raise UserError(f"the checkpoint {incomplete[0]} can't be written: {error}; {remedy}") from error
    return [from_log_entry(entry) for entry in trainer.state.log_history if "eval_auroc" in entry]


def last_checkpoint(directory: Path) -> Path | None:
    """Return the last complete checkpoint."""
    complete = [path for path in directory.glob("checkpoint-*") if _is_complete(path)]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _incomplete(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*checkpoint-*") if path.is_dir() and not _is_complete(path)]


def _remove(checkpoints: Sequence[Path]) -> None:
    for path in checkpoints:
        shutil.rmtree(path, ignore_errors=True)


def _is_complete(checkpoint: Path) -> bool:
    """Whether all of it was written: a run may have been killed while it wrote the last file."""
    try:
        json.loads((checkpoint / _LAST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def make_trainer(
    model: Any, forward: Forward, examples: Examples, protocol: Protocol, directory: Path
) -> CalibrationTrainer:
    """Return a trainer of a model with an adapter; checkpoints go to the directory."""
    return CalibrationTrainer(
        forward=forward,
        probe=model.get_submodule(PROBE) if protocol.method == "lora-probe" else None,
        model=model,
        args=_arguments(protocol, directory, len(examples.fit), model),
        data_collator=Collator(examples.pad_token_id),
        train_dataset=examples.fit,
        eval_dataset=examples.held_out,
        compute_metrics=lambda of: validation_metrics(of.predictions[0], of.predictions[1], of.label_ids),
    )


def _arguments(protocol: Protocol, directory: Path, n_examples: int, model: Any) -> TrainingArguments:
    from accelerate import PartialState

    batch = protocol.batch_size * protocol.gradient_accumulation * PartialState().num_processes
    every = min(MOST_STEPS, max(1, -(-n_examples // batch)))
    arguments = TrainingArguments(
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
    # With several GPUs and one process the Trainer would copy the model to all of them for each batch, and split the
    # batch's tensors, whose rows are of different things. `accelerate launch` is the way to use them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def details(trainer: CalibrationTrainer) -> dict[str, Any]:
    """Return what is not in the protocol: fixed settings, and what the run found."""
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
