"""The record of one doc, columns over many of them, and the files that hold them."""

from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.columns import Columns, metric_arrays
from lm_eval_calibration.records.corpus import Corpus, CorpusRecord
from lm_eval_calibration.records.gap_sums import Doc
from lm_eval_calibration.records.generation import Generation, GenerationRecord, Sample
from lm_eval_calibration.records.reading import ordered, read_columns, read_records
from lm_eval_calibration.records.record import (
    DEFINITION_VERSION,
    KEPT_PROB,
    OTHER_FILTER,
    RECORD_KEY,
    RECORD_VERSION,
    AnswerRecord,
    Record,
    ScoredAnswer,
)
from lm_eval_calibration.records.stated import StatedConfidence
from lm_eval_calibration.records.temperature_grid import TokenTemperatures

__all__ = [
    "DEFINITION_VERSION",
    "KEPT_PROB",
    "OTHER_FILTER",
    "RECORD_KEY",
    "RECORD_VERSION",
    "AnswerRecord",
    "ChoicesRecord",
    "Columns",
    "Corpus",
    "CorpusRecord",
    "Doc",
    "Generation",
    "GenerationRecord",
    "Record",
    "Sample",
    "ScoredAnswer",
    "StatedConfidence",
    "TokenTemperatures",
    "metric_arrays",
    "ordered",
    "read_columns",
    "read_records",
]
