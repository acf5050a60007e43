"""Confidence in the choice that ``acc_norm`` takes: log-likelihoods are divided by the choices' characters."""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval_calibration.tasks.confidences.option import one_of
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource


class LengthNormalized(ConfidenceSource):
    """Softmax of log-likelihoods per character."""

    name = "norm"
    tables = ("choices",)
    option = one_of("confidence", ("summed", "length_normalized"), default="summed")
    stock_metrics = ("acc_norm",)

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the records as ``acc_norm`` sees them."""
        return (record.length_normalized() for record in records)


LENGTH_NORMALIZED = LengthNormalized()
