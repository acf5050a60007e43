"""What all kinds of calibrated tasks share: the harness's hooks, the run's settings, and which doc an answer is to."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lm_eval_calibration.backends import CorpusScores, TokenScores
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.aggregation import Logged
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.pools import NO_FILTER, Statistic
from lm_eval_calibration.harness.ranks import tolerate_missing_metrics, with_borrowed_doc
from lm_eval_calibration.harness.run import current_run
from lm_eval_calibration.records import KEPT_PROB, RECORD_KEY, Record, cluster_of
from lm_eval_calibration.tasks import registration
from lm_eval_calibration.tasks.aggregation import N_CLUSTERS, MetricStatistic, NumberOfClusters
from lm_eval_calibration.tasks.bounds import BOUNDS, Bound
from lm_eval_calibration.tasks.checked_task import CheckedTask
from lm_eval_calibration.tasks.clusters import check_clusters, hint_at_clusters
from lm_eval_calibration.tasks.confidences.registry import requested
from lm_eval_calibration.tasks.confidences.source import Table
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.docs import doc_hash
from lm_eval_calibration.tasks.first_token import UNASSIGNED_MASS
from lm_eval_calibration.tasks.views import means, requested_means, rows


class BaseTask(CheckedTask):
    """A calibrated task, of whatever kind.

    Attributes:
        calibration: the configuration that it was made of.
        options: what the user set.
        table: which confidence sources and rows it may have; None for a corpus, whose texts are no answers.
        scored_filter: the filter under which its calibration metrics stand.
        sources: the confidence sources that the options switch on.
        rows: its rows of metrics of confidence, by name.
        elicitations: the sources that add requests to those of the run.
    """

    table: Table | None = None
    scored_filter = NO_FILTER

    def __init__(self, calibration: Configuration) -> None:
        registration.register_all()  # with what was defined since
        super().__init__(calibration)
        self.options = calibration.options
        self.sources = requested(self.options, self.table) if self.table else []
        known = rows(self.table) if self.table else {}
        self.rows = {name: known[name] for name in calibration.metrics if name in known}
        self.elicitations: list[Any] = []
        self._full_ece_is_exact = True
        self._available: dict[str, None] = {}  # names of our metrics that can be computed of this run's docs
        self._logged: set[str] = set()  # keys of the log that hold no number to aggregate
        self._sample_ids: list[int] = []
        self._chat_template: Any = None  # of the run

    @property
    def requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options add, which a group's file can't know."""
        return (*self._requested_metrics, *((N_CLUSTERS,) if self.options.cluster else ()))

    @property
    @abstractmethod
    def _requested_metrics(self) -> tuple[str, ...]:
        """Those of this kind of task."""

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that a group shows only if all its calibrated tasks have them."""
        if self.table is None:
            return (*self.calibration.metrics, N_CLUSTERS)
        return (*rows(self.table), *means(self.table), *BOUNDS, UNASSIGNED_MASS, N_CLUSTERS)

    @property
    def requested_means(self) -> dict[str, bool]:
        """The rows that are means over docs which the options add, and whether higher is better."""
        return requested_means(self.options, self.table) if self.table else {}

    def _statistic(self, name: str) -> Statistic:
        """Return one of our metrics, with this task's n_bins."""
        return MetricStatistic.of(self.rows[name], self.options.n_bins)

    def statistics(self, records: Sequence[Record]) -> dict[str, Statistic]:
        """Return what can be computed from the run's records, those of all ranks, by name."""
        bounds = {name: Bound(end, self.options.n_bins) for name, end in BOUNDS.items()}
        available = self._available | dict.fromkeys(self._available_in(records) if self._available else ())
        of_sources = {self.rows[name].source for name in available if name in self.rows}
        shown = [n for n in available if n not in self.rows or self.rows[n].source.beside in (None, *of_sources)]
        ours: dict[str, Statistic] = {name: bounds.get(name) or self._statistic(name) for name in shown}
        return ours | ({N_CLUSTERS: NumberOfClusters()} if self.options.cluster else {})

    def _available_in(self, records: Sequence[Record]) -> Iterable[str]:
        """Return our metrics that some of these records have, which may be other ranks'."""
        return ()

    def aggregation(self) -> dict[str, Any]:
        """Return the harness's aggregations, and for keys that hold no number what keeps them for ours."""
        stock: dict[str, Any] = super().aggregation()
        return stock | dict.fromkeys(self._logged, partial(Logged, self))

    # --- requests ----------------------------------------------------------------------------------------------------

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests as ours, once the run's settings are known."""
        run = current_run()
        if not run.log_samples:
            logger.warning(
                "Samples are not logged: the table is complete, but no metric can be computed again (with other bins, "
                "say), compared doc by doc or recalibrated from this run. Add --log_samples --output_path DIR."
            )
        if run.lm is not None and kwargs.get("world_size", 1) > 1:
            tolerate_missing_metrics(run.lm)
        self._available, self._logged = {}, set()
        # With --samples the harness numbers the chosen docs from 0, in the data set's order.
        self._sample_ids = sorted(set(kwargs.get("samples") or ()))
        self._chat_template = kwargs.get("chat_template") if kwargs.get("apply_chat_template") else None
        self._prepare(run.lm)
        super().build_all_requests(**with_borrowed_doc(self, kwargs))
        self._check_cached_requests()
        self._look_for_clusters()
        for request in self._instances:  # here, since --cache_requests may have kept them for another version
            self._make_ours(request)
            self._attach_options(request)

    def _look_for_clusters(self) -> None:
        """Raise TaskError where docs lack the field of the option cluster; warn where they look clustered without."""
        docs = list({request.doc_id: request.doc for request in self._instances}.values())
        if self.options.cluster:
            check_clusters(self, docs, self.options.cluster)
        else:
            hint_at_clusters(self, docs)

    def _prepare(self, lm: Any) -> None:
        """Get ready for a run, whose backend this is (None outside a run): requests are built next."""
        started = [source.start(self, lm, self._chat_template) for source in self.sources]
        self.elicitations = [elicitation for elicitation in started if elicitation is not None]

    def _check_cached_requests(self) -> None:
        """Raise TaskError where ``--cache_requests`` kept requests of a run with other options."""

    @abstractmethod
    def _make_ours(self, request: Any) -> None:
        """Make a request one of our types."""

    def _attach_options(self, request: Any) -> None:
        """Attach to a request the options of this task that the backend reads."""
        request.shared_prefixes, request.temperatures = self.options.shared_prefixes, self.options.temperatures

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter as the stock task does; let each answer know its request (``process_results`` gets no doc id)."""
        super().apply_filters()
        for instance in self._instances:
            for key, answer in instance.filtered_resps.items():
                if isinstance(answer, TokenScores | CorpusScores):
                    instance.filtered_resps[key] = answer.answering(instance)

    def _determines_full_ece(self, answers: Iterable[TokenScores]) -> bool:
        """Whether these hold every probability that needs a bin of its own; warn where they don't."""
        if all(answer.complete_from <= 1 / self.options.n_bins for answer in answers):
            return True
        logger.warning(
            f"{self.task_name}: the server returns too few of the vocabulary's probabilities for full_ece in "
            f"{self.options.n_bins} bins; full_ece_at_least and full_ece_at_most are what it can be"
        )
        return False

    @property
    def _predicts_only(self) -> bool:
        return "bypass" in self._metric_fn_list  # --predict_only

    def _result(
        self, record: Record, means: Mapping[str, Any], available: Iterable[str], others: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return what the harness logs of a doc, and aggregates.

        Args:
            record: its record, from which our metrics are computed when the harness has those of all docs.
            means: values of which the harness takes the mean, the stock task's among them.
            available: our metrics that can be computed.
            others: names of further numbers that are computed from records where they are available.
        """
        self._available |= dict.fromkeys(available)
        # Loggers (W&B, Trackio) look every listed metric up in the samples, available or not.
        names = (*self.calibration.metrics, *others)
        entries = {n: f"see {RECORD_KEY}" if n in available else "unavailable" for n in names}
        return {**means, **self._only_logged({**entries, RECORD_KEY: record.to_dict()})}

    def _means_of(self, record: Record) -> dict[str, float]:
        """Return a doc's values of the means that confidence sources add."""
        present = [source for source in self.sources if source.is_in(record)]
        values = {name: value for s in present for name, value in s.means_of(record, self.options).items()}
        return {name: values[name] for name in self.requested_means if name in values}

    def _predicted(self, record: Record, logged: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the harness logs of a doc with --predict_only."""
        return {**self._only_logged({**logged, RECORD_KEY: record.to_dict()}), "bypass": None}

    def _only_logged(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Let entries of a doc's log be no numbers to aggregate."""
        self._logged |= set(entries)
        return entries

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
                f"{self.task_name} doc {doc_id}: the cached requests belong to another doc; run without "
                "--cache_requests or --samples"
            )
        cluster = cluster_of(doc, self.options.cluster) if self.options.cluster else None
        return {"task": self.task_name, "doc_id": doc_id, "doc_hash": hash_of_doc, "cluster": cluster}

    def _true_doc_id(self, doc_id: int) -> int:
        return self._sample_ids[doc_id] if self._sample_ids else doc_id
