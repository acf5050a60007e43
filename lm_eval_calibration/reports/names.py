"""Names of models and tasks as people say them."""

from pathlib import Path

EVERYTHING = "All together"
"""Name of the docs of all tasks, as a part of a report."""

_ACRONYMS = ("mmlu", "stem", "arc", "bbh", "gsm8k", "us", "mbpp", "piqa", "boolq")


def task_name(name: str) -> str:
    """Return the name of a task or group in words."""
    if name == EVERYTHING:
        return "All tasks"
    words = name.removesuffix("_calibration").split("_")
    text = " ".join(word.upper() if word in _ACRONYMS else word for word in words)
    return text[:1].upper() + text[1:]


def short_task_name(name: str, length: int = 24) -> str:
    """Return :func:`task_name` in the width of a diagram's label."""
    text = task_name(name).removeprefix("MMLU ")
    return text if len(text) <= length else f"{text[: length - 1]}…"


def model_name(model: str) -> str:
    """Return the name of a model; of one in a folder, the folder's."""
    return Path(model).name if Path(model).is_absolute() else model
