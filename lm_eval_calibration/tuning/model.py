"""The base model, loaded by the harness as a run loads it."""

from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning.settings import Grading


def load(grading: Grading, device: str | None, batch_size: int) -> Any:
    """Return the harness's ``hf`` backend with the base model.

    Raises:
        UserError: it can't be loaded, is an encoder-decoder, has an adapter or float16 weights, or no chat template
            where one is to be applied.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import simple_parse_args_string

    options = simple_parse_args_string(grading.model_args)
    for name in ("pretrained", "peft", "delta"):
        if name in options:
            raise UserError(f"--model_args has {name}: tune starts from the base model, which --model names")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
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
    if grading.apply_chat_template and not lm.tokenizer.chat_template:
        raise UserError(f"{grading.model} has no chat template: leave --apply_chat_template out")
    return lm
