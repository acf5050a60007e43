"""Training by transformers' Trainer: checkpoints, resuming, distribution and progress are its own."""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from transformers import Trainer, TrainingArguments, set_seed

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning.examples import Collator, Examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.loss import cross_entropy, judge, mean_divergence
from lm_eval_calibration.tuning.probe import Probe, fit, read_out
from lm_eval_calibration.tuning.settings import Protocol

RANK, ALPHA, DROPOUT = 8, 32, 0.1
"""Of the adapter. Kapoor et al. 2024, arXiv:2406.08391."""

CHECKPOINTS = "checkpoints"

MOST_STEPS = 200
"""Steps after which the adapter is validated and kept, if an epoch is longer."""

VALIDATED = ("auroc", "ece", "nll", "accuracy_drift")

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

        In validation the loss is the cross-entropy alone: whether answers stay is seen by their accuracy there.
        """
        seen = self.forward(model, inputs)
        found = judge(inputs, seen.query, seen.choices)
        if self.probe is not None:
            found = found._replace(log_odds=self.probe(seen.hidden))
        loss = cross_entropy(found.log_odds, inputs["labels"])
        if model.training:
            frozen = self.forward.frozen(self.accelerator.unwrap_model(model), inputs)
            loss = loss + mean_divergence(seen.answer, frozen, inputs["answer"][:, 2], len(inputs["labels"]))
        return (loss, {"loss": loss, **found._asdict()}) if return_outputs else loss


def train(trainer: CalibrationTrainer, directory: Path) -> list[dict[str, float]]:
    """Train, going on from the last whole checkpoint if there is one, and return the validations, the first untuned.

    Raises:
        UserError: a checkpoint can't be written; what can't be used of it is removed, the one before stays.
    """
    checkpoint = last_checkpoint(directory)
    trainer.args.eval_on_start = checkpoint is None  # what was found then is in the checkpoint's history
    if checkpoint is not None and trainer.is_world_process_zero():
        typer.echo(f"goes on from {checkpoint.name} in {directory}")
    try:
        with _quiet():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Exception as error:
        if not (cut := _unfinished(directory)):
            raise
        for path in cut:
            shutil.rmtree(path, ignore_errors=True)
        typer.echo(err=True)  # ends the line of the progress bar
        last = last_checkpoint(directory)
        kept = f"{last} is whole, and the same command goes on from it" if last else "none was written before"
        raise UserError(f"the checkpoint {cut[0]} can't be written: {error}; {kept}") from error
    return [validation(entry) for entry in trainer.state.log_history if "eval_auroc" in entry]


def validation(entry: Mapping[str, float]) -> dict[str, float]:
    """Return an entry of the Trainer's history without its prefixes."""
    return {"epoch": float(entry.get("epoch") or 0.0), **{name: float(entry[f"eval_{name}"]) for name in VALIDATED}}


def last_checkpoint(directory: Path) -> Path | None:
    """Return the last checkpoint that is whole."""
    whole = [path for path in directory.glob("checkpoint-*") if (path / _WHOLE).is_file()]
    return max(whole, key=_step, default=None)


def _unfinished(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*checkpoint-*") if path.is_dir() and not (path / _WHOLE).is_file()]


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
    probe = model.get_submodule("base_model.model.probe") if protocol.method == "lora-probe" else None
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


def judged(log_odds: Any, answers_right: Any, correct: Any) -> dict[str, float]:
    """Return the metrics of validation, named as in :data:`VALIDATED`.

    Args:
        log_odds: [n] of each answer's being right.
        answers_right: [n] whether the model's answers are right now.
        correct: [n] whether the frozen model's answers, which it was asked about, were.
    """
    log_odds, correct = np.asarray(log_odds, dtype=np.float64), np.asarray(correct, dtype=np.int64)
    p_true = 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    return {
        "auroc": metrics.auroc(p_true, correct),
        "ece": metrics.ece(p_true, correct),
        "nll": float(np.mean(np.logaddexp(0, np.where(correct == 1, -log_odds, log_odds)))),
        "accuracy_drift": float(np.mean(answers_right, dtype=np.float64) - np.mean(correct)),
    }


def with_adapter(model: Any, protocol: Protocol) -> Any:
    """Return the model with an untrained adapter, which changes nothing yet.

    Raises:
        UserError: it has no modules of the names given, or PEFT knows none for it by itself.
    """
    from peft import LoraConfig, get_peft_model

    set_seed(protocol.seed)
    if protocol.method == "lora-probe":
        hidden_size = model.get_output_embeddings().weight.shape[1]
        model.probe = Probe.untrained(hidden_size, model.device)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        modules_to_save=["probe"] if protocol.method == "lora-probe" else None,
        target_modules=_one_or_list(protocol.target_modules),
    )
    try:
        with _quiet():
            return get_peft_model(model, config)
    except ValueError as error:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
        }
        raise UserError(
            f"no adapter can be put on {', '.join(protocol.target_modules) or 'this model'}: {error} "
            f"(--target-modules takes names out of {', '.join(sorted(linear))}, or all-linear)"
        ) from error


def _one_or_list(names: tuple[str, ...]) -> str | list[str] | None:
    return "all-linear" if names == ("all-linear",) else list(names) or None


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what libraries warn of and nobody can mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # which PEFT then mends
        yield


def save(trainer: CalibrationTrainer, directory: Path) -> None:
    """Keep the adapter as PEFT does, by way of a folder beside it; a probe trained with it in a file of its own.

    Raises:
        UserError: it can't be written; the checkpoints are still there.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.probe is not None:
        Probe.write(trainer.probe.get_submodule("modules_to_save.default"), directory)  # type: ignore[arg-type]
        del model.get_submodule("base_model.model").probe  # what a run loads has no such module
        model.peft_config["default"].modules_to_save = None
    weights = {name: weight for name, weight in model.state_dict().items() if "lora_" in name}
    aside = directory / ".adapter"
    try:
        model.save_pretrained(str(aside), state_dict=weights)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (aside / name).replace(directory / name)
    except Exception as error:  # safetensors raises errors of its own
        raise UserError(
            f"the adapter can't be written to {directory}: {error}; the same command tries again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def how(trainer: CalibrationTrainer) -> dict[str, Any]:
    """Return what of the training the protocol doesn't say."""
    targets = trainer.accelerator.unwrap_model(trainer.model).peft_config["default"].target_modules
    return {
        "rank": RANK,
        "alpha": ALPHA,
        "dropout": DROPOUT,
        "adapted_modules": [targets] if isinstance(targets, str) else sorted(targets),
        "optimizer": "AdamW, cosine, no warm-up, no weight decay",
        "loss": "cross-entropy of P(true) + Jensen-Shannon divergence of the answer's tokens from the frozen model",
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step,
        "processes": trainer.args.world_size,
        "dtype": str(trainer.accelerator.unwrap_model(trainer.model).dtype).removeprefix("torch."),
    }


def train_probe(
    model: Any,
    forward: Forward,
    examples: Examples,
    protocol: Protocol,
    directory: Path,
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Fit a probe to the frozen model's hidden states and keep it; return the validations and what else was set.

    Args:
        model: without an adapter.
        forward: calls it.
        examples: those to learn from and to validate by.
        protocol: what the user asked for.
        directory: where to keep it.
    """
    (hidden, correct, _), (held_out, held_out_correct, untuned) = (
        read_out(forward, model, part, protocol.batch_size, examples.pad_token_id)
        for part in (examples.fit, examples.held_out)
    )
    probe = fit(hidden, correct, protocol.seed)
    probe.write(directory)
    with torch.no_grad():
        log_odds = probe(torch.from_numpy(held_out)).numpy()
    validations = [
        {"epoch": float(epoch), **judged(found, held_out_correct, held_out_correct)}
        for epoch, found in enumerate((untuned, log_odds))
    ]
    return validations, {"loss": "logistic regression, regularisation chosen by folds"}
