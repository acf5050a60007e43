"""The record of one doc, columns over many of them, and the files that hold them."""

from lm_eval_calibration.records.answer import ScoredRecord
from lm_eval_calibration.records.answer_options import AnswerOptions
from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.clusters import DOC, cluster_of, clusters_of, field_of, n_clusters
from lm_eval_calibration.records.columns import Columns, metric_arrays
from lm_eval_calibration.records.corpus import Corpus, CorpusRecord
from lm_eval_calibration.records.final_answer import (
    ANSWERED,
    EMPTY,
    NOT_FOUND,
    OUTCOMES,
    REFUSED,
    TRUNCATED,
    BudgetedAnswer,
    ChainConfidence,
    FinalAnswer,
)
from lm_eval_calibration.records.gap_sums import Doc
from lm_eval_calibration.records.generation import Generation, GenerationRecord
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
from lm_eval_calibration.records.samples import Sample
from lm_eval_calibration.records.stated import StatedConfidence
from lm_eval_calibration.records.temperature_grid import TokenTemperatures

__all__ = [
    "ANSWERED",
    "DEFINITION_VERSION",
    "DOC",
    "EMPTY",
    "KEPT_PROB",
    "NOT_FOUND",
    "OTHER_FILTER",
    "OUTCOMES",
    "RECORD_KEY",
    "RECORD_VERSION",
    "REFUSED",
    "TRUNCATED",
    "AnswerOptions",
    "AnswerRecord",
    "BudgetedAnswer",
    "ChainConfidence",
    "ChoicesRecord",
    "Columns",
    "Corpus",
    "CorpusRecord",
    "Doc",
    "FinalAnswer",
    "Generation",
    "GenerationRecord",
    "Record",
    "Sample",
    "ScoredAnswer",
    "ScoredRecord",
    "StatedConfidence",
    "TokenTemperatures",
    "cluster_of",
    "clusters_of",
    "field_of",
    "metric_arrays",
    "n_clusters",
    "ordered",
    "read_columns",
    "read_records",
]
