"""The record of one doc, columns over many of them, and the files that hold them."""

from lm_eval_calibration.records.record import (
    DEFINITION_VERSION,
    RECORD_KEY,
    RECORD_VERSION,
    Record,
    read_columns,
    read_records,
    read_samples,
)

__all__ = [
    "DEFINITION_VERSION",
    "RECORD_KEY",
    "RECORD_VERSION",
    "Record",
    "read_columns",
    "read_records",
    "read_samples",
]
