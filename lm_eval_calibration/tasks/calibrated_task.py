"""The task class that every calibrated YAML names: the stock task, its metrics, and calibration beside them."""

import json
import sys
from collections.abc import ItemsView, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, metric_registry
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import handle_non_serializable, hash_string

from lm_eval_calibration.metrics import CATALOG, CORE
from lm_eval_calibration.records import KEPT_PROB, RECORD_KEY, Record
from lm_eval_calibration.scoring import REQUEST_TYPE, TokenScores
from lm_eval_calibration.tasks.aggregation import Aggregation, StderrAggregation
from lm_eval_calibration.tasks.notices import new_run, say_once
from lm_eval_calibration.tasks.options import KEY, Options, TaskError, check_metric, merged
from lm_eval_calibration.tasks.stock import stock_config


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


class CalibratedTask(ConfigurableTask):  # type: ignore[misc]
    """A stock multiple-choice task with calibration metrics.

    Args:
        config: ``task`` (our name) and ``stock_task`` (the harness's); any other key of a task YAML overrides the
            stock task's. Without ``stock_task`` it is a whole task configuration. A ``metric_list`` chooses among
            our metrics; without one the core metrics are used. Options stand in ``metadata: {calibration: ...}``.

    Raises:
        TaskError: naming the task and what can't be calibrated in it.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        new_run()
        given = dict(config or {})
        name = given.get("task")
        if not name:
            raise TaskError(f"a task configuration needs a name under 'task'; this one has {sorted(given)}")
        stock_name = given.pop("stock_task", None)
        stock = stock_config(stock_name) if stock_name else {}
        given.pop("class", None)
        metadata = merged(stock.get("metadata"), _yaml_metadata(given), given.get("metadata"))
        self.options = Options.from_metadata(metadata, name)
        metadata[KEY] = self.options.to_metadata()
        full = {**stock, **given, "metadata": metadata}
        _refuse_unsupported(full, name)
        full["metric_list"], self._calibration_metrics = _metric_list(stock, given, self.options, name)
        try:
            super().__init__(config=full)
        except IndexError as error:  # the harness looks at the first doc and its gold choice
            if not len(self.eval_docs):
                raise TaskError(f"{name}: the split that is evaluated has no docs") from error
            raise TaskError(f"{name}, doc 0: the gold label is outside the choices ({error})") from error
        if self.multiple_target:
            raise TaskError(f"{name} has several gold answers for a doc; calibration needs exactly one")
        self._aggregate_here()
        self._with_stderr = True
        self._sample_ids: list[int] = []

    def _aggregate_here(self) -> None:
        """Aggregate with this task's n_bins, even where the harness owns a metric of the same name."""
        for name in self._calibration_metrics:
            metric = CATALOG[name]
            self._aggregation_list[name] = Aggregation(metric, self.options.n_bins)
            self._aggregation_list[f"{name}_stderr"] = StderrAggregation(metric, self.options.n_bins)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the data set; say what to do where it can't be reached."""
        try:
            super().download(dataset_kwargs, **kwargs)
        except (OSError, ValueError) as error:  # ValueError: another subset is cached, this one is not
            subset = f" ({self.DATASET_NAME})" if self.DATASET_NAME else ""
            raise TaskError(
                f"{self.config.task}: the data set {self.DATASET_PATH}{subset} can't be loaded: {error}. Without "
                f"network, run once with it (the copy is cached) or from a folder that holds {self.DATASET_PATH}/"
            ) from error

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests as token-score requests; read off how the run treats samples and errors."""
        run = _evaluate_arguments()
        iterations = run.get("bootstrap_iters", 1)
        self._with_stderr = isinstance(iterations, int) and iterations > 0  # as the harness decides
        if not run.get("log_samples", True):
            say_once(
                "Samples are not logged: the table is complete, but no metric can be computed again (with other bins, "
                "say), compared doc by doc or recalibrated from this run. Add --log_samples --output_path DIR."
            )
        # With --samples the harness numbers the chosen docs from 0, in the data set's order.
        self._sample_ids = sorted(set(kwargs.get("samples") or ()))
        super().build_all_requests(**kwargs)
        for request in self._instances:  # here, since --cache_requests may have kept them for another version
            request.request_type = REQUEST_TYPE

    def apply_filters(self) -> None:
        """Filter as the stock task does; let each answer know its request (``process_results`` gets no doc id)."""
        super().apply_filters()
        for instance in self._instances:
            for key, answer in instance.filtered_resps.items():
                if isinstance(answer, TokenScores):
                    instance.filtered_resps[key] = answer.answering(instance)

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> DocResult:
        """Return the stock task's metrics and, under every calibration metric's name, the doc's record."""
        record = self._record(doc, results)
        logged: dict[str, Any] = {RECORD_KEY: record.to_dict()}
        if "bypass" in self._metric_fn_list:  # --predict_only
            return DocResult({**logged, "bypass": None}, {"bypass": None})
        stock = super().process_results(doc, list(results))
        ours = [name for name in self._calibration_metrics if self._available(name, results)]
        stock = {name: value for name, value in stock.items() if name not in self._calibration_metrics}
        aggregated = dict(stock)
        for name in ours:
            aggregated[name] = record
            if self._with_stderr:
                # The harness writes "N/A" under `<name>_stderr`; this item, coming after, replaces it.
                aggregated[f"{name}_stderr"] = record
        # Loggers (W&B, Trackio) look every listed metric up in the samples, available or not.
        entries = {name: f"see {RECORD_KEY}" if name in ours else "unavailable" for name in self._calibration_metrics}
        return DocResult({**stock, **entries, **logged}, aggregated)

    def _available(self, name: str, results: Sequence[Any]) -> bool:
        if CATALOG[name].kind != "full_vocabulary":
            return True
        return all(isinstance(answer, TokenScores) and answer.has_distributions for answer in results)

    def _distributions(self, scores: TokenScores) -> dict[str, Any]:
        """Return the record's fields of the gold choice's token distributions, if the backend gave any."""
        if scores.log_probs is None or scores.large_probs is None:
            return {}
        kept = min(KEPT_PROB, 1 / self.options.n_bins)
        return {
            "log_probs": tuple(scores.log_probs.tolist()),
            "large_probs": tuple(tuple(probs[probs >= kept].tolist()) for probs in scores.large_probs),
            "kept_from": kept,
            "vocab_size": scores.vocab_size,
        }

    def _true_doc_id(self, doc_id: int) -> int:
        return self._sample_ids[doc_id] if self._sample_ids else doc_id

    def _record(self, doc: dict[str, Any], results: Sequence[Any]) -> Record:
        choices = self.doc_to_choice(doc)
        gold = _gold_index(self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc), choices)
        answers = list(results)[: len(choices)]  # acc_mutual_info asks for unconditional ones too, after these
        scores = answers[0 if gold is None else gold]
        request = getattr(answers[0], "request", None)
        doc_id = None if request is None else self._true_doc_id(request.doc_id)
        place = f"{self.task_name} doc {doc_id}"
        doc_hash = _doc_hash(doc)
        if request is not None and _doc_hash(request.doc) != doc_hash:
            # The harness's cached requests know nothing of --samples.
            raise TaskError(f"{place}: the requests are another doc's; run without --cache_requests or --samples")
        log_likelihoods = _checked([float(answer[0]) for answer in answers], place)
        distributions: dict[str, Any] = {}
        if gold is not None and isinstance(scores, TokenScores):
            distributions = self._distributions(scores)
        return Record(
            task=self.task_name,
            doc_id=doc_id,
            doc_hash=doc_hash,
            prompt_hash=hash_string(request.arguments[0]) if request else "",
            kind="multiple_choice",
            log_likelihoods=tuple(log_likelihoods),
            gold=gold,
            certificate=getattr(scores, "certificate", {}),
            **distributions,
        )


def _doc_hash(doc: Any) -> str:
    """Return the harness's own hash of a doc."""
    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def _refuse_unsupported(config: Mapping[str, Any], name: str) -> None:
    reasons = {
        f"its output_type is {config.get('output_type')!r}, not 'multiple_choice'": config.get("output_type")
        != "multiple_choice",
        "it has a process_results of its own": config.get("process_results") is not None,
        "it shows images or audio": config.get("doc_to_image") or config.get("doc_to_audio"),
        "it has no doc_to_choice": config.get("doc_to_choice") is None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise TaskError(f"{name} can't be calibrated: {reason}")


def _metric_list(
    stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, name: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the task's ``metric_list`` and the names in it that are ours, in order."""
    chosen = list(given.get("metric_list") or ())
    names = [entry.get("metric") for entry in chosen]
    for metric in names:
        if isinstance(metric, str) and (metric in CATALOG or metric not in metric_registry):
            check_metric(metric, f"{name}: metric_list")
    ours = [metric for metric in names if metric in CATALOG] or list(CORE)
    ours += [metric for metric in options.metrics if metric not in ours]
    defaults = [{"metric": metric} for metric in DEFAULT_METRIC_REGISTRY["multiple_choice"]]
    stocks = list(stock.get("metric_list") or ([] if chosen and not stock else defaults))
    stocks += [entry for entry in chosen if entry.get("metric") not in [e.get("metric") for e in stocks]]
    entries = [
        {"metric": metric, "aggregation": metric, "higher_is_better": CATALOG[metric].higher_is_better}
        for metric in ours
    ]
    return [*_complete([entry for entry in stocks if entry.get("metric") not in CATALOG]), *entries], ours


def _complete(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the harness's default metrics the aggregation that it would warn about."""
    return [
        {"aggregation": "mean", "higher_is_better": True, **entry} if set(entry) == {"metric"} else dict(entry)
        for entry in entries
    ]


def _yaml_metadata(given: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the YAML's own metadata: the harness lets ``--metadata`` replace keys whole before we see them."""
    source = (given.get("metadata") or {}).get("config_source")
    if not source or source == "inline":
        return None
    metadata = load_yaml(source, resolve_func=False).get("metadata")
    return metadata if isinstance(metadata, Mapping) else None


def _gold_index(gold: Any, choices: Sequence[str]) -> int | None:
    """Return the gold choice's index as the harness reads it, or None for a broken label (it then counts -100)."""
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return int(gold) if isinstance(gold, int | np.integer) and 0 <= gold < len(choices) else None


def _checked(log_likelihoods: list[float], place: str) -> list[float]:
    for index, value in enumerate(log_likelihoods):
        if not value < float("inf"):  # nan or +inf; -inf is a probability of 0
            raise ValueError(f"{place}: the log-likelihood of choice {index} is {value}")
    if max(log_likelihoods, default=float("-inf")) == float("-inf"):
        raise ValueError(f"{place}: no choice has a finite log-likelihood ({log_likelihoods})")
    return log_likelihoods


def _evaluate_arguments() -> Mapping[str, Any]:
    """Return the arguments of the harness's running ``evaluate``, which tells tasks of neither of the two we need.

    Read off its frame, nothing is changed; outside a run this is empty.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "evaluate" and frame.f_globals.get("__name__") == "lm_eval.evaluator":
            return {key: frame.f_locals.get(key) for key in ("log_samples", "bootstrap_iters")}
        frame = frame.f_back  # type: ignore[assignment]
    return {}
