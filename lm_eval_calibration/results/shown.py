"""What is shown of a model: its name, and no folder of the machine that it ran on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def model_name(model: str) -> str:
    """Return the name of a model; of one in a folder (as it is, or as the harness makes a name of it), the folder's."""
    if model.startswith("__"):  # the harness's name of a folder of results
        return model.rstrip("_").rpartition("__")[2]
    return Path(model).name if Path(model).is_absolute() else model


def without_folders(value: Any) -> Any:
    """Return settings with every absolute path in them, alone or as key=PATH, cut to its last part."""
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    parts = [part.rpartition("=") for part in value.split(",")]
    return ",".join(f"{key}{equals}{model_name(text)}" for key, equals, text in parts)
