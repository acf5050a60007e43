"""The base model, loaded by the harness as a run loads it."""

from itertools import chain
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning.settings import GradingSettings


def load(grading: GradingSettings, device: str | None, batch_size: int) -> Any:
    """Return the harness's ``hf`` backend with the base model.

    Raises:
        UserError: it can't be loaded, is an encoder-decoder, has an adapter, float16 weights or quantised ones that
            don't train, or no chat template where one is to be applied.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_calibration.backends.hf.gguf_files import read_once

    options = simple_parse_args_string(grading.model_args)
    for name in ("pretrained", "peft", "delta"):
        if name in options:
            raise UserError(f"--model_args has {name}: tune starts from the base model, which --model names")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with read_once(options):
            lm = HFLM(pretrained=grading.model, device=device, batch_size=batch_size, **options)
    except (OSError, ValueError, TypeError, ImportError) as error:  # no such file, no such model, no such argument
        raise UserError(f"{grading.model} can't be loaded: {' '.join(str(error).split())}") from error
    if lm.backend != "causal":
        raise UserError(f"{grading.model} is an encoder-decoder; tune trains decoder-only models")
    if lm.model.dtype == torch.float16:
        raise UserError(
            f"{grading.model} is loaded in float16, in which training needs its losses scaled: add --model_args "
            "dtype=bfloat16 (or float32)"
        )
    _check_trainable(grading.model, lm.model)
    if grading.apply_chat_template and not lm.tokenizer.chat_template:
        raise UserError(f"{grading.model} has no chat template: leave --apply_chat_template out")
    return lm


def _check_trainable(name: str, model: Any) -> None:
    """Refuse quantised weights that don't train; those of a GGUF file do, which became floats on loading."""
    from torch import uint8

    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or quantizer.is_trainable:
        return
    method = getattr(quantizer.quantization_config.quant_method, "value", "a method of its own")
    is_packed = any(tensor.dtype == uint8 for tensor in chain(model.parameters(), model.buffers()))
    if method == "gguf" and not is_packed:
        quantizer.remove_quantization_config(model)  # else the Trainer refuses the floats, too
    else:
        raise UserError(f"{name} is quantised by {method}, which can't be trained: use its unquantised weights")
