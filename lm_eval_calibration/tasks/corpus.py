"""A corpus: texts that the model predicts token by token, in the stock task's windows."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import hash_string

from lm_eval_calibration.backends import CORPUS_REQUEST_TYPE, CorpusScores
from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.harness.pools import Statistic
from lm_eval_calibration.metrics import CORPUS_CATALOG
from lm_eval_calibration.records import Corpus, CorpusRecord
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.token_metrics import TokenStatistic


class CorpusTask(BaseTask):
    """A rolling log-likelihood task: Full-ECE, top-label calibration and accuracy of every token.

    Its records hold sums over the run's bins, not tokens: other bins need another run.
    """

    @property
    def _requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options add: a corpus has the same always."""
        return ()

    def _statistic(self, name: str) -> Statistic:
        return TokenStatistic(CORPUS_CATALOG[name], self.options.n_bins)

    # --- docs --------------------------------------------------------------------------------------------------------

    def _problem(self, doc: dict[str, Any], *, labels_too: bool) -> str | None:
        text = self.doc_to_target(doc)
        return None if isinstance(text, str) else f"doc_to_target gives {text!r}, not a text"

    def _check_columns(self) -> None:
        value = self.calibration.full["doc_to_target"]
        if isinstance(value, str) and value.isidentifier() and value not in self.features:
            raise TaskError(
                f"{self.calibration.where}: doc_to_target is {value!r}{nearest(value, self.features)}; the columns are "
                f"{', '.join(self.features)}, and templates have {{{{...}}}}"
            )

    # --- requests ----------------------------------------------------------------------------------------------------

    def _make_ours(self, request: Any) -> None:
        request.request_type, request.n_bins = CORPUS_REQUEST_TYPE, self.options.n_bins

    # --- results -----------------------------------------------------------------------------------------------------

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the stock task's perplexities and, under every metric of the tokens, the text's record."""
        scores: CorpusScores = results[0]
        if self._predicts_only:
            return self._predicted(self._text_record(doc, scores, {}), {})
        stock = ConfigurableTask.process_results(self, doc, [float(scores)])
        names = self.calibration.metrics
        means = {name: value for name, value in stock.items() if name not in names}
        ours = names if scores.has_distributions else ()
        return self._result(self._text_record(doc, scores, stock), means, ours)

    def _text_record(self, doc: dict[str, Any], scores: CorpusScores, stock: dict[str, Any]) -> CorpusRecord:
        known: dict[str, Any] = {key: stock[name][1] for name, key in _UNITS.items() if name in stock}
        if scores.sums is not None:
            known |= {name: tuple(array.tolist()) for name, array in scores.sums._asdict().items()}
        return CorpusRecord(
            **self._identity(doc, scores.request),
            prompt_hash=hash_string(self.doc_to_target(doc)),
            vocab_size=scores.vocab_size,
            certificate=scores.certificate,
            corpus=Corpus(log_likelihood=float(scores), n_tokens=scores.n_tokens, **known),
        )


_UNITS = {"word_perplexity": "n_words", "byte_perplexity": "n_bytes", "bits_per_byte": "n_bytes"}
"""Stock metrics that come with the number of units that they are per."""
