"""A corpus: texts that the model predicts token by token, in the stock task's windows."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import hash_string

from lm_eval_calibration.backends import CORPUS_REQUEST_TYPE, CorpusScores
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.run import current_run
from lm_eval_calibration.records.corpus import Corpus
from lm_eval_calibration.records.record import RECORD_KEY, Record
from lm_eval_calibration.tasks.choices import CalibratedTask, DocResult, doc_hash
from lm_eval_calibration.tasks.corpus_metrics import CORPUS_METRICS, CorpusAggregation, CorpusStderr
from lm_eval_calibration.tasks.options import nearest


class CorpusTask(CalibratedTask):
    """A rolling log-likelihood task: Full-ECE, top-label calibration and accuracy of every token.

    Its records hold sums over the run's bins, not tokens: other bins need another run.
    """

    request_type = CORPUS_REQUEST_TYPE

    @property
    def asked_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options ask for: a corpus has the same always."""
        return ()

    def _aggregate_here(self) -> None:
        for name in self.calibration.metrics:
            self._aggregation_list[name] = CorpusAggregation(CORPUS_METRICS[name], self.options.n_bins)
            self._aggregation_list[f"{name}_stderr"] = CorpusStderr(CORPUS_METRICS[name], self.options.n_bins)

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

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests, each with the number of bins that its sums are wanted for."""
        if self.options.permute or self.options.metrics:
            warn_once(f"{self.task_name}: permute and metrics are for questions; a corpus takes n_bins only")
        super().build_all_requests(**kwargs)
        for request in self._instances:
            request.n_bins = self.options.n_bins

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> Any:
        """Return the stock task's request."""
        return ConfigurableTask.construct_requests(self, doc, ctx, **kwargs)

    def _check_orders(self) -> None:
        """There are no choices."""

    def _check_queries(self) -> None:
        """There are no answers."""

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter as the stock task does; let each answer know its request."""
        ConfigurableTask.apply_filters(self)
        for instance in self._instances:
            for key, answer in instance.filtered_resps.items():
                instance.filtered_resps[key] = answer.answering(instance)

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> DocResult:
        """Return the stock task's perplexities and, under every metric of the tokens, the text's record."""
        scores: CorpusScores = results[0]
        if "bypass" in self._metric_fn_list:  # --predict_only
            logged = {RECORD_KEY: self._text_record(doc, scores, {}).to_dict()}
            return DocResult({**logged, "bypass": None}, {"bypass": None})
        stock = ConfigurableTask.process_results(self, doc, [float(scores)])
        record = self._text_record(doc, scores, stock)
        names = self.calibration.metrics
        aggregated = {name: value for name, value in stock.items() if name not in names}
        for name in names if scores.has_distributions else ():
            aggregated[name] = record
            if current_run().has_stderrs:
                aggregated[f"{name}_stderr"] = record
        entries = dict.fromkeys(names, f"see {RECORD_KEY}" if scores.has_distributions else "unavailable")
        return DocResult({**stock, **entries, RECORD_KEY: record.to_dict()}, aggregated)

    def _text_record(self, doc: dict[str, Any], scores: CorpusScores, stock: dict[str, Any]) -> Record:
        request, text = scores.request, self.doc_to_target(doc)
        known: dict[str, Any] = {key: stock[name][1] for name, key in _UNITS.items() if name in stock}
        if scores.sums is not None:
            known |= {name: tuple(array.tolist()) for name, array in scores.sums._asdict().items()}
        return Record(
            task=self.task_name,
            doc_id=None if request is None else self._true_doc_id(request.doc_id),
            doc_hash=doc_hash(doc),
            prompt_hash=hash_string(text),
            kind="corpus",
            vocab_size=scores.vocab_size,
            certificate=scores.certificate,
            corpus=Corpus(log_likelihood=float(scores), n_tokens=scores.n_tokens, **known),
        )


_UNITS = {"word_perplexity": "n_words", "byte_perplexity": "n_bytes", "bits_per_byte": "n_bytes"}
"""Stock metrics that come with the number of units that they are per."""
