"""The default confidence: the probability of the most probable choice, or the mean probability of an answer's tokens.

Of choices it is the largest entry of the softmax of their summed log-likelihoods, as ``acc`` compares them; of
generated answers ``pavg`` (Spiess et al. 2024, arXiv:2402.02047). Its metrics have their plain names.
"""

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.tasks.confidences.source import CATALOGS, ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric, trust_rows


class Sequence(ConfidenceSource):
    """The probability that the model gives to its answer."""

    name = "sequence"
    report_name = "probability of the answer"

    @property
    def suffix(self) -> str:
        """None: these are the metrics without a suffix."""
        return ""

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return every metric; those of the full vocabulary are of the tokens of a reference."""
        return dict(CATALOGS[table])

    def rows(self, table: Table) -> dict[str, TableMetric]:
        """Return every metric under its own name."""
        rows = {name: TableMetric(metric, self) for name, metric in self.metrics(table).items()}
        return rows | trust_rows(rows)


SEQUENCE = Sequence()
