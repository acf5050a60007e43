"""GGUF files parsed once where transformers parses them four times."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any
from unittest.mock import patch


@contextmanager
def read_once(model_args: Any) -> Iterator[None]:
    """Let the harness load a model of a GGUF file in half of the time, where the arguments name one.

    model_args: as the harness takes them, a text or a mapping.
    """
    if "gguf_file" not in (model_args or ()):
        yield
        return
    from lm_eval.models.huggingface import HFLM

    with patch.object(HFLM, "__init__", _reading_once(HFLM.__init__)):
        yield


def _reading_once(load: Callable[..., None]) -> Callable[..., None]:
    """Keep what transformers reads of a GGUF file until the model is loaded.

    It parses the file's metadata (of SmolLM2 a vocabulary of 49,152 words, 4 to 7 s) for the configuration, twice, for
    the tokenizer and for the weights, and makes the table of tensor names anew for every module.
    """

    @wraps(load)
    def loading(*args: Any, **kwargs: Any) -> None:
        try:
            import gguf
        except ImportError:  # transformers says what is missing
            return load(*args, **kwargs)
        with (
            patch.object(gguf, "GGUFReader", lru_cache(maxsize=1)(gguf.GGUFReader)),
            patch.object(gguf, "get_tensor_name_map", lru_cache(gguf.get_tensor_name_map)),
        ):
            return load(*args, **kwargs)

    return loading
