"""The harness's loggers for Weights & Biases and Trackio, which then get tables and pictures of calibration, too."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lm_eval.loggers import TrackioLogger, WandbLogger

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.log import logger

Content = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
"""Makes of samples by task and of the results what is logged, by name: PNG files as bytes, tables as data frames."""


@contextmanager
def logging_more(content: Content) -> Iterator[None]:
    """Let both loggers log this content after the samples that the harness hands to them."""
    stock = {owner: owner.log_eval_samples for owner in (WandbLogger, TrackioLogger)}
    try:
        WandbLogger.log_eval_samples = _with_more(WandbLogger.log_eval_samples, content, "wandb")
        TrackioLogger.log_eval_samples = _with_more(TrackioLogger.log_eval_samples, content, "trackio")
        yield
    finally:
        for owner, log_eval_samples in stock.items():
            owner.log_eval_samples = log_eval_samples


def _with_more(log_eval_samples: Callable[..., None], content: Content, package: str) -> Callable[..., None]:
    @wraps(log_eval_samples)
    def patched(self: Any, samples: Any) -> None:
        log_eval_samples(self, samples)
        try:
            found = content(samples, self.results)
        except UserError as error:  # matplotlib is missing: the run goes on, and its numbers are logged
            logger.warning("no pictures in %s: %s", package, error)
            return
        made = {name: _as_media(package, value) for name, value in found.items()}
        if made:
            (self.run if package == "wandb" else self._trackio).log(made)

    return patched


def _as_media(package: str, value: Any) -> Any:
    """Return a picture or a table as the tracker's own object."""
    if package == "wandb":
        import wandb
        from PIL import Image

        return wandb.Image(Image.open(io.BytesIO(value))) if isinstance(value, bytes) else wandb.Table(dataframe=value)
    import trackio

    if not isinstance(value, bytes):
        return trackio.Table(dataframe=value)
    from PIL import Image

    return trackio.Image(Image.open(io.BytesIO(value)))
