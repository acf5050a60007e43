"""What all kinds of calibrated tasks share: the harness's hooks, the run's settings, and which doc an answer is to."""

import sys
from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Mapping
from typing import Any

from lm_eval_calibration.backends import CorpusScores, TokenScores, set_shared_prefixes, set_temperatures
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.log import collect, new_run, say_once
from lm_eval_calibration.harness.ranks import docs_or_borrowed, gather_what_is_there
from lm_eval_calibration.records.record import KEPT_PROB, RECORD_KEY, Record
from lm_eval_calibration.tasks import registration
from lm_eval_calibration.tasks.aggregation import Aggregation, StderrAggregation
from lm_eval_calibration.tasks.bounds import BOUNDS, BoundAggregation
from lm_eval_calibration.tasks.checked_task import CheckedTask
from lm_eval_calibration.tasks.confidences.registry import requested
from lm_eval_calibration.tasks.confidences.source import Table
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.docs import doc_hash
from lm_eval_calibration.tasks.views import requested_means, rows

NO_FILTER = "none"
"""What the harness calls the filter of a task that has none."""


class DocResult(dict[str, Any]):
    """What ``process_results`` returns for a doc.

    The harness logs the dict (``sample.update(result)``) and aggregates its ``items()``. So the stored entries are
    what ``samples_*.jsonl`` shows, and ``items()`` is what the metrics are computed from: the record stands in the
    log once, and standard errors need no entry there.
    """

    def __init__(self, logged: Mapping[str, Any], aggregated: Mapping[str, Any]) -> None:
        super().__init__(logged)
        self.aggregated = dict(aggregated)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return what is aggregated."""
        return self.aggregated.items()


class BaseTask(CheckedTask):
    """A calibrated task, of whatever kind.

    Attributes:
        calibration: the configuration that it was made of.
        options: what the user set.
        table: which confidence sources and rows it may have; None for a corpus, whose texts are no answers.
        judged_filter: the filter under which its calibration metrics stand.
        sources: the confidence sources that the options switch on.
        rows: its rows of metrics of confidence, by name.
        elicitations: the sources that add requests to those of the run.
    """

    table: Table | None = None
    judged_filter = NO_FILTER

    def __init__(self, calibration: Configuration) -> None:
        new_run()
        registration.register()  # what was defined since
        super().__init__(calibration)
        self.options = calibration.options
        self.sources = requested(self.options, self.table) if self.table else []
        known = rows(self.table) if self.table else {}
        self.rows = {name: known[name] for name in calibration.metrics if name in known}
        self.elicitations: list[Any] = []
        self._aggregation_list |= self._aggregations()
        self._with_stderr = True
        self._full_ece_is_exact = True
        self._sample_ids: list[int] = []
        self._chat_template: Any = None  # of the run

    @property
    @abstractmethod
    def requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options add, which a group's file can't know."""

    @property
    def requested_means(self) -> dict[str, bool]:
        """The rows that are means over docs which the options add, and whether higher is better."""
        return requested_means(self.options, self.table) if self.table else {}

    def _aggregations(self) -> dict[str, Any]:
        """Return our aggregations by name: with this task's n_bins, even where the harness owns the name."""
        n_bins = self.options.n_bins
        found: dict[str, Any] = {name: BoundAggregation(bound, n_bins) for name, bound in BOUNDS.items()}
        for name, (metric, _, view, has_stderr) in self.rows.items():
            found[name] = Aggregation(metric, n_bins, view)
            if has_stderr:
                found[f"{name}_stderr"] = StderrAggregation(metric, n_bins, view)
        return found

    # --- requests ----------------------------------------------------------------------------------------------------

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests as ours, once the run's settings are known."""
        collect()
        run = evaluate_arguments()
        iterations = run.get("bootstrap_iters", 1)
        self._with_stderr = isinstance(iterations, int) and iterations > 0  # as the harness decides
        if not run.get("log_samples", True):
            say_once(
                "Samples are not logged: the table is complete, but no metric can be computed again (with other bins, "
                "say), compared doc by doc or recalibrated from this run. Add --log_samples --output_path DIR."
            )
        lm = run.get("lm")
        tasks = (run.get("task_dict") or {}).get("tasks", {}).values()
        if lm is not None:  # one forward serves several tasks: if one of them shares nothing, none does
            ours = [task for task in tasks if isinstance(task, BaseTask)]
            set_shared_prefixes(lm, all(task.options.shared_prefixes for task in ours))
            set_temperatures(lm, any(task.options.temperatures for task in ours))
            if kwargs.get("world_size", 1) > 1:
                gather_what_is_there(lm)
        # With --samples the harness numbers the chosen docs from 0, in the data set's order.
        self._sample_ids = sorted(set(kwargs.get("samples") or ()))
        self._chat_template = kwargs.get("chat_template") if kwargs.get("apply_chat_template") else None
        self._prepare(lm)
        super().build_all_requests(**docs_or_borrowed(self, kwargs))
        self._check_cached_requests()
        for request in self._instances:  # here, since --cache_requests may have kept them for another version
            self._make_ours(request)

    def _prepare(self, lm: Any) -> None:
        """Get ready for a run, whose backend this is (None outside a run): requests are built next."""
        started = [source.start(self, lm, self._chat_template) for source in self.sources]
        self.elicitations = [elicitation for elicitation in started if elicitation is not None]

    def _check_cached_requests(self) -> None:
        """Raise TaskError where ``--cache_requests`` kept requests of a run with other options."""

    @abstractmethod
    def _make_ours(self, request: Any) -> None:
        """Make a request one of our types."""

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter as the stock task does; let each answer know its request (``process_results`` gets no doc id)."""
        super().apply_filters()
        for instance in self._instances:
            for key, answer in instance.filtered_resps.items():
                if isinstance(answer, TokenScores | CorpusScores):
                    instance.filtered_resps[key] = answer.answering(instance)

    def _settles_full_ece(self, answers: Iterable[TokenScores]) -> bool:
        """Whether these tell every probability that needs a bin of its own; say so where they don't."""
        if all(answer.complete_from <= 1 / self.options.n_bins for answer in answers):
            return True
        say_once(
            f"{self.task_name}: the server tells too few of the vocabulary's probabilities for full_ece in "
            f"{self.options.n_bins} bins; full_ece_at_least and full_ece_at_most are what it can be"
        )
        return False

    @property
    def _predicts_only(self) -> bool:
        return "bypass" in self._metric_fn_list  # --predict_only

    def _result(
        self, record: Record, means: Mapping[str, Any], available: Mapping[str, bool], logged: Mapping[str, Any]
    ) -> DocResult:
        """Return what the harness logs and aggregates of a doc.

        Args:
            record: its record, from which our metrics are computed.
            means: values of which the harness takes the mean, the stock task's among them.
            available: our metrics that can be computed, and whether each has a standard error.
            logged: what stands in the log beside these.
        """
        aggregated = dict(means)
        for name, has_stderr in available.items():
            aggregated[name] = record
            if self._with_stderr and has_stderr:
                # The harness writes "N/A" under `<name>_stderr`; this item, coming after, replaces it.
                aggregated[f"{name}_stderr"] = record
        # Loggers (W&B, Trackio) look every listed metric up in the samples, available or not.
        entries = {n: f"see {RECORD_KEY}" if n in available else "unavailable" for n in self.calibration.metrics}
        return DocResult({**means, **entries, **logged, RECORD_KEY: record.to_dict()}, aggregated)

    def _means_of(self, record: Record) -> dict[str, float]:
        """Return a doc's values of the means that confidence sources add."""
        present = [source for source in self.sources if source.is_in(record)]
        return {name: value for s in present for name, value in s.means_of(record, self.options).items()}

    def _predicted(self, record: Record, logged: Mapping[str, Any]) -> DocResult:
        """Return what the harness logs of a doc where nothing is to be judged."""
        return DocResult({**logged, RECORD_KEY: record.to_dict(), "bypass": None}, {"bypass": None})

    def _distributions(self, scores: TokenScores) -> dict[str, Any]:
        """Return the record's fields of a reference's token distributions, if the backend gave any."""
        if scores.log_probs is None or scores.large_probs is None:
            return {}
        kept = max(min(KEPT_PROB, 1 / self.options.n_bins), scores.complete_from)
        return {
            "log_probs": tuple(scores.log_probs.tolist()),
            "large_probs": tuple(tuple(probs[probs >= kept].tolist()) for probs in scores.large_probs),
            "kept_from": kept,
            "vocab_size": scores.vocab_size,
        }

    def _identity(self, doc: dict[str, Any], request: Any) -> dict[str, Any]:
        """Return the fields of a record that say which doc it is of; raise TaskError if the request is another's."""
        doc_id = None if request is None else self._true_doc_id(request.doc_id)
        hash_of_doc = doc_hash(doc)
        if request is not None and doc_hash(request.doc) != hash_of_doc:
            # The harness's cached requests know nothing of --samples.
            raise TaskError(
                f"{self.task_name} doc {doc_id}: the requests are another doc's; run without --cache_requests or "
                "--samples"
            )
        return {"task": self.task_name, "doc_id": doc_id, "doc_hash": hash_of_doc}

    def _true_doc_id(self, doc_id: int) -> int:
        return self._sample_ids[doc_id] if self._sample_ids else doc_id


def evaluate_arguments() -> Mapping[str, Any]:
    """Return the arguments of the harness's running ``evaluate``, which tells tasks of none of those we need.

    Read off its frame, nothing is changed; outside a run this is empty.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "evaluate" and frame.f_globals.get("__name__") == "lm_eval.evaluator":
            return {key: frame.f_locals.get(key) for key in ("log_samples", "bootstrap_iters", "lm", "task_dict")}
        frame = frame.f_back  # type: ignore[assignment]
    return {}
