"""The LoRA adapter: put on a model, and saved in PEFT's own files."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import set_seed

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning.probe import Probe
from lm_eval_calibration.tuning.settings import Protocol

RANK, ALPHA, DROPOUT = 8, 32, 0.1
"""Kapoor et al. 2024, arXiv:2406.08391."""

PROBE = "base_model.model.probe"
"""Path in the model of a probe that is trained with the adapter."""


def with_adapter(model: Any, protocol: Protocol) -> Any:
    """Return the model with an untrained adapter, which changes nothing yet.

    Raises:
        UserError: it has no modules of the names given, or PEFT knows none for it by itself.
    """
    from peft import LoraConfig, get_peft_model

    set_seed(protocol.seed)
    if protocol.method == "lora-probe":
        model.probe = Probe.untrained(model.get_output_embeddings().weight.shape[1], model.device)
    names = protocol.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        modules_to_save=["probe"] if protocol.method == "lora-probe" else None,
        target_modules="all-linear" if names == ("all-linear",) else list(names) or None,
    )
    try:
        with without_known_warnings():
            return get_peft_model(model, config)
    except ValueError as error:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
        }
        raise UserError(
            f"no adapter can be put on {', '.join(names) or 'this model'}: {error} "
            f"(--target_modules takes names out of {', '.join(sorted(linear))}, or all-linear)"
        ) from error


def save(model: Any, directory: Path) -> None:
    """Save the adapter, by way of a folder beside it; a probe trained with it goes into a file of its own.

    The model has no probe any more then.

    Raises:
        UserError: it can't be written; the checkpoints are still there.
    """
    config = model.peft_config["default"]
    if config.modules_to_save:
        Probe.write(model.get_submodule(f"{PROBE}.modules_to_save.default"), directory)
        del model.get_submodule(PROBE.rpartition(".")[0]).probe  # the model that a run loads has no such module
        config.modules_to_save = None
    weights = {name: weight for name, weight in model.state_dict().items() if "lora_" in name}
    aside = directory / ".adapter"
    try:
        model.save_pretrained(str(aside), state_dict=weights, save_embedding_layers=False)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (aside / name).replace(directory / name)
    except Exception as error:  # safetensors raises errors of its own
        raise UserError(
            f"the adapter can't be written to {directory}: {error}; the same command tries again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def adapted_modules(model: Any) -> list[str]:
    """Names of the modules that the adapter is on."""
    targets = model.peft_config["default"].target_modules
    return [targets] if isinstance(targets, str) else sorted(targets)


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Leave out warnings of libraries about which nobody can do anything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Could not find a config file")  # offline, or beside a GGUF file
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # which PEFT then mends
        yield
