"""Errors of the harness and its libraries that newcomers meet, each in one line with the way out."""

import re
from collections.abc import Iterator, Sequence

EXTRAS = {
    "tenacity": "lm-eval[api]",
    "aiohttp": "lm-eval[api]",
    "tiktoken": "lm-eval[api]",
    "vllm": "lm-eval[vllm]",
    "wandb": "lm-eval[wandb]",
    "trackio": "trackio",
    "jinja2": "lm-eval-calibration[report]",
    "matplotlib": "lm-eval-calibration[report]",
    "peft": "lm-eval-calibration[tuning]",
    "accelerate": "lm-eval-calibration[tuning]",
    "gguf": "lm-eval-calibration[demo]",
}
"""What to install for a module that is missing."""

_REFUSED = re.compile(r"\b(400|422)\b.*(client error|bad request|unprocessable)", re.IGNORECASE)


def way_out(error: BaseException, arguments: Sequence[str] = ()) -> str | None:
    """Return one line about an error that is known, and what to do; None of any other.

    Args:
        error: what was raised; its causes are looked at, too.
        arguments: of the command, where what to do depends on them.
    """
    for part in _chain(error):
        if line := _line(part, " ".join(arguments)):
            return line
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException, command: str) -> str | None:
    message = " ".join(str(error).split())
    if isinstance(error, ImportError):
        missing = next((name for name in EXTRAS if re.search(rf"\b{name}\b", f"{error.name} {message}")), None)
        return None if missing is None else f"{missing} is not installed: pip install '{EXTRAS[missing]}'"
    if "not compiled with CUDA" in message or "No CUDA GPUs are available" in message:
        return "torch has no CUDA device here: run with --device cpu (or device=cpu in --model_args)"
    if _REFUSED.search(message) and "base_url=" in command and "tokenized_requests=False" not in command:
        return (
            f"the server refused the request ({message[:200]}); where it takes texts and no token ids, add "
            "tokenized_requests=False to --model_args"
        )
    if type(error).__name__ in ("ConnectionError", "ClientConnectorError") and "base_url=" in command:
        address = re.search(r"base_url=([^,\s]+)", command)
        return f"no server answers at {address[1] if address else 'base_url'}: is it running?"
    if isinstance(error, OSError) and re.search(
        r"not a valid model identifier|couldn't connect to .*huggingface", message
    ):
        return f"{message.split('. ')[0][:200]}: name a folder with the model, or a model that the hub can give"
    return None
