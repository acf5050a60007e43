"""The task class that every calibrated YAML names: the stock task, its metrics, and calibration beside them."""

import json
import sys
from collections.abc import ItemsView, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Self, cast

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import handle_non_serializable, hash_string

from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, TokenScores
from lm_eval_calibration.harness.log import collect, logger, new_run, say_once
from lm_eval_calibration.harness.ranks import docs_or_borrowed, gather_what_is_there
from lm_eval_calibration.metrics import CATALOG, answer_changes, position_spread
from lm_eval_calibration.records.record import KEPT_PROB, RECORD_KEY, Record
from lm_eval_calibration.tasks.aggregation import Aggregation, StderrAggregation
from lm_eval_calibration.tasks.bounds import BOUNDS, BoundAggregation
from lm_eval_calibration.tasks.checked_task import CheckedTask, gold_index
from lm_eval_calibration.tasks.confidences.p_true import QueryRequests, judged, query_requests
from lm_eval_calibration.tasks.configuration import GENERATION, ROLLING, configuration, order_metrics
from lm_eval_calibration.tasks.first_token import UNASSIGNED_MASS, fields_of, say_what_is_open
from lm_eval_calibration.tasks.options import TaskError
from lm_eval_calibration.tasks.permutation import Slots, are_labels, find_slots, in_own_order, replace_last, rotations
from lm_eval_calibration.tasks.temperature import on_grid
from lm_eval_calibration.tasks.views import TABLE, permuted


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


class CalibratedTask(CheckedTask):
    """A multiple-choice task with calibration metrics.

    Args:
        config: ``task`` (our name) and ``stock_task`` (the harness's name of a task, or the path of a task YAML, as
            seen from ours); any other key of a task YAML overrides that task's. Without ``stock_task`` it is a whole
            task configuration. A ``metric_list`` chooses among our metrics; without one the core metrics are used.
            Options stand in ``metadata: {calibration: ...}``.

    Raises:
        TaskError: naming file, task, doc and field, and what can't be calibrated in it.
    """

    request_type = SCORING_REQUEST_TYPE

    def __new__(cls, config: Mapping[str, Any] | None = None) -> Self:
        """Make the task of the stock task's kind."""
        from lm_eval_calibration.tasks.corpus import CorpusTask
        from lm_eval_calibration.tasks.generation import GenerationTask
        from lm_eval_calibration.tasks.written_choices import ChoicesInWords

        calibration = configuration(config)
        kinds: Mapping[str, type[Any]] = {GENERATION: GenerationTask, ROLLING: CorpusTask}
        kind = ChoicesInWords if calibration.in_words else kinds.get(calibration.output_type, CalibratedTask)
        self: Self = super().__new__(kind)
        self.calibration = calibration
        return self

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        new_run()
        super().__init__(self.calibration)
        self.options = self.calibration.options
        self._aggregate_here()
        self._with_stderr = True
        self._full_ece_is_exact = True
        self._is_of_first_token = False
        self._sample_ids: list[int] = []
        self._chat_template: Any = None  # of the run
        self._queries: QueryRequests | None = None
        self._queries_are_nested = False

    @property
    def asked_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options ask for, which a group's file can't know."""
        plain = [name for name in self.calibration.metrics if name in self.options.metrics or name not in CATALOG]
        norm = ["acc_norm"] if self.options.confidence == "length_normalized" else []
        bounds = () if self._full_ece_is_exact else tuple(BOUNDS)
        open_mass = (UNASSIGNED_MASS,) if self._is_of_first_token else ()
        return (*norm, *plain, *order_metrics(self.options), *bounds, *open_mass)

    def _aggregate_here(self) -> None:
        """Aggregate with this task's n_bins, even where the harness owns a metric of the same name."""
        for name in self.calibration.metrics:
            metric, view, has_stderr = TABLE[name]
            self._aggregation_list[name] = Aggregation(metric, self.options.n_bins, view)
            if has_stderr:
                self._aggregation_list[f"{name}_stderr"] = StderrAggregation(metric, self.options.n_bins, view)
        self._aggregation_list[UNASSIGNED_MASS] = mean
        self._aggregate_bounds()

    def _aggregate_bounds(self) -> None:
        for name, bound in BOUNDS.items():
            self._aggregation_list[name] = BoundAggregation(bound, self.options.n_bins)

    # --- requests ----------------------------------------------------------------------------------------------------

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests as token-score requests; read off how the run treats samples and errors."""
        collect()
        run = evaluate_arguments()
        iterations = run.get("bootstrap_iters", 1)
        self._with_stderr = isinstance(iterations, int) and iterations > 0  # as the harness decides
        if not run.get("log_samples", True):
            say_once(
                "Samples are not logged: the table is complete, but no metric can be computed again (with other bins, "
                "say), compared doc by doc or recalibrated from this run. Add --log_samples --output_path DIR."
            )
        # With --samples the harness numbers the chosen docs from 0, in the data set's order.
        self._sample_ids = sorted(set(kwargs.get("samples") or ()))
        if kwargs.get("world_size", 1) > 1 and run.get("lm") is not None:
            gather_what_is_there(run["lm"])
        self._chat_template = kwargs.get("chat_template") if kwargs.get("apply_chat_template") else None
        if self.options.p_true:
            self._queries = QueryRequests.of(self.options.p_true, self._chat_template, self.calibration.where)
            self._queries_are_nested = self._queries.is_nested(run.get("lm"))
        super().build_all_requests(**docs_or_borrowed(self, kwargs))
        self._check_orders()
        self._check_queries()
        for request in self._instances:  # here, since --cache_requests may have kept them for another version
            request.request_type = self.request_type
        self._tell_backend(self._instances)

    def _tell_backend(self, requests: Iterable[Any]) -> None:
        """Let requests say what this run wants of the backend."""
        for request in requests:
            request.shared_prefixes, request.temperatures = self.options.shared_prefixes, self.options.temperatures

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Any]:
        """Return the stock task's requests, and after them those that query its choices or change their order."""
        requests: list[Any] = super().construct_requests(doc, ctx, **kwargs)
        if self._queries is not None:
            choices = requests[: len(self.doc_to_choice(doc))]  # acc_mutual_info has others after these
            requests += query_requests(self._queries, choices, len(requests))
        if not self._is_asked_in_several_orders:
            return requests
        slots, choices = cast(Slots, self._slots), self.doc_to_choice(doc)
        if len(slots.texts(doc) or ()) != len(choices):
            raise TaskError(
                f"{self.place_of(doc)}: permute finds other texts in {slots} than the {len(choices)} choices"
            )
        text = self.doc_to_text(doc)
        for rotation in rotations(doc_hash(doc), self.options.permute, len(choices))[1:]:
            other = slots.rotated(doc, rotation)
            context = replace_last(ctx, text, self.doc_to_text(other))
            if context is None:
                raise TaskError(f"{self.place_of(doc)}: permute needs the prompt to hold doc_to_text as it is")
            for request in super().construct_requests(other, context, **kwargs)[: len(choices)]:
                request.doc, request.idx, request.rotation = doc, len(requests), rotation
                requests.append(request)
        return requests

    @property
    def _is_asked_in_several_orders(self) -> bool:
        return self.options.permute > 1 and self._slots is not None

    @cached_property
    def _slots(self) -> Slots | None:
        """Where the docs hold the texts of their choices; None where their order can't be changed."""
        docs = self.eval_docs
        some = [docs[i] for i in range(0, len(docs), max(1, len(docs) // 20))]
        # The harness's own: an error of a task's function on texts that are not its own is no error of the user's.
        to_text, to_choice = partial(ConfigurableTask.doc_to_text, self), partial(ConfigurableTask.doc_to_choice, self)
        found = [] if self.multiple_input else find_slots(some, to_text, to_choice)
        if len(found) == 1:
            logger.info("%s: permute moves the texts in %s", self.task_name, found[0])
            return found[0]
        if found:
            fields = " and ".join(map(str, found))
            raise TaskError(f"{self.calibration.where}: the prompts list {fields}: permute can't tell which to move")
        asked = [(to_text(doc), to_choice(doc)) for doc in some]
        are_shown = all(isinstance(text, str) and all(c in text for c in choices) for text, choices in asked)
        if (are_shown and len({tuple(choices) for _, choices in asked}) > 1) or are_labels(asked[0][1]):
            raise TaskError(
                f"{self.calibration.where}: permute can't tell which fields of a doc hold the texts of its choices "
                f"({', '.join(asked[0][1])})"
            )
        say_once(f"{self.task_name}: its docs list no choices, so it is asked in one order and has no order metrics")
        return None

    def _check_orders(self) -> None:
        """Refuse requests that --cache_requests kept of a run with other options."""
        if self.options.permute < 2 and not any(hasattr(request, "rotation") for request in self._instances):
            return
        asked: dict[int, set[int]] = {}
        docs = {request.doc_id: request.doc for request in self._instances}
        for request in self._instances:
            asked.setdefault(request.doc_id, {0}).add(getattr(request, "rotation", 0))
        for doc_id, doc in docs.items():
            n_choices = len(self.doc_to_choice(doc)) if self._is_asked_in_several_orders else 1
            if asked[doc_id] != set(rotations(doc_hash(doc), max(self.options.permute, 1), n_choices)):
                raise TaskError(
                    f"{self.task_name}: the cached requests ask for other orders of the choices: run with "
                    "--cache_requests refresh"
                )

    def _check_queries(self) -> None:
        """Refuse requests that --cache_requests kept of a run with another query, or with none."""
        queried = {getattr(request, "queried", ("",))[0] for request in self._instances} - {""}
        if queried != ({self.options.p_true} - {""}):
            raise TaskError(
                f"{self.task_name}: the cached requests ask for other things than P(true) in the wording "
                f"{self.options.p_true or 'none'!r}: run with --cache_requests refresh"
            )

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter as the stock task does; let each answer know its request (``process_results`` gets no doc id)."""
        super().apply_filters()
        docs: dict[tuple[int, int], list[TokenScores]] = {}  # by doc and order of its choices
        for instance in self._instances:
            for key, answer in instance.filtered_resps.items():
                if isinstance(answer, TokenScores):
                    instance.filtered_resps[key] = answer.answering(instance)
                    if not hasattr(instance, "queried"):
                        place = instance.doc_id, getattr(instance, "rotation", 0)
                        docs.setdefault(place, []).append(answer)
        self._full_ece_is_exact = self._settles_full_ece(answer for answers in docs.values() for answer in answers)
        as_asked = [answers for (_, rotation), answers in docs.items() if rotation == 0]
        self._is_of_first_token = say_what_is_open(self.task_name, as_asked)

    def _settles_full_ece(self, answers: Iterable[TokenScores]) -> bool:
        """Whether these tell every probability that needs a bin of its own; say so where they don't."""
        if all(answer.complete_from <= 1 / self.options.n_bins for answer in answers):
            return True
        say_once(
            f"{self.task_name}: the server tells too few of the vocabulary's probabilities for full_ece in "
            f"{self.options.n_bins} bins; full_ece_at_least and full_ece_at_most are what it can be"
        )
        return False

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> DocResult:
        """Return the stock task's metrics and, under every calibration metric's name, the doc's record."""
        asked: dict[int, list[Any]] = {}  # by rotation
        queried: dict[int, list[Any]] = {}  # by choice
        for answer in results:
            request: Any = getattr(answer, "request", None)
            if hasattr(request, "queried"):
                queried.setdefault(request.queried[1], []).append(answer)
            else:
                asked.setdefault(getattr(request, "rotation", 0), []).append(answer)
        record = self._record(doc, asked, queried)
        logged: dict[str, Any] = {RECORD_KEY: record.to_dict()}
        if "bypass" in self._metric_fn_list:  # --predict_only
            return DocResult({**logged, "bypass": None}, {"bypass": None})
        stock = super().process_results(doc, asked[0])
        names = self.calibration.metrics
        ours = [name for name in names if self._available(name, results, record)]
        means = {name: value for name, value in stock.items() if name not in names} | self._order_metrics(record)
        if self._is_of_first_token:
            means[UNASSIGNED_MASS] = record.extra[UNASSIGNED_MASS]
        aggregated = dict(means)
        for name in ours:
            aggregated[name] = record
            if self._with_stderr and TABLE[name].has_stderr:
                # The harness writes "N/A" under `<name>_stderr`; this item, coming after, replaces it.
                aggregated[f"{name}_stderr"] = record
        if record.large_probs is not None and "full_ece" in names and not self._full_ece_is_exact:
            aggregated |= dict.fromkeys(BOUNDS, record)
        # Loggers (W&B, Trackio) look every listed metric up in the samples, available or not.
        entries = {name: f"see {RECORD_KEY}" if name in ours else "unavailable" for name in names}
        return DocResult({**means, **entries, **logged}, aggregated)

    def _available(self, name: str, results: Sequence[Any], record: Record) -> bool:
        if TABLE[name].view is permuted:
            return record.rotations is not None
        if TABLE[name].metric.kind != "full_vocabulary":
            return True
        known = all(isinstance(answer, TokenScores) and answer.has_distributions for answer in results)
        return known and self._full_ece_is_exact

    def _order_metrics(self, record: Record) -> dict[str, float]:
        """Return what asking in several orders shows of a doc."""
        if record.rotated_log_likelihoods is None:
            return {}
        orders = [record.rotated_probs]
        values = {
            "acc_permuted": lambda: float(record.permuted().correct or 0),
            "position_spread": lambda: position_spread(orders),
            "answer_changes": lambda: answer_changes(orders) if len(record.log_likelihoods) > 1 else 0.0,
        }
        return {name: values[name]() for name in order_metrics(self.options)}

    def _distributions(self, scores: TokenScores) -> dict[str, Any]:
        """Return the record's fields of the gold choice's token distributions, if the backend gave any."""
        if scores.log_probs is None or scores.large_probs is None:
            return {}
        kept = max(min(KEPT_PROB, 1 / self.options.n_bins), scores.complete_from)
        return {
            "log_probs": tuple(scores.log_probs.tolist()),
            "large_probs": tuple(tuple(probs[probs >= kept].tolist()) for probs in scores.large_probs),
            "kept_from": kept,
            "vocab_size": scores.vocab_size,
        }

    def _orders(self, asked: Mapping[int, Sequence[Any]], n_choices: int, place: str) -> dict[str, Any]:
        """Return the record's fields of the orders in which the choices were asked."""
        if not (self._is_asked_in_several_orders or self.options.permute == 1):
            return {}
        orders = {
            rotation: in_own_order(_checked([float(answer[0]) for answer in answers[:n_choices]], place), rotation)
            for rotation, answers in sorted(asked.items())
        }
        return {"rotations": tuple(orders), "rotated_log_likelihoods": tuple(orders.values())}

    def _true_doc_id(self, doc_id: int) -> int:
        return self._sample_ids[doc_id] if self._sample_ids else doc_id

    def _record(
        self, doc: dict[str, Any], asked: Mapping[int, Sequence[Any]], queried: Mapping[int, Sequence[Any]]
    ) -> Record:
        choices = self.doc_to_choice(doc)
        gold = gold_index(self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc), choices)
        answers = asked[0][: len(choices)]  # acc_mutual_info asks for unconditional ones too, after these
        scores = answers[0 if gold is None else gold]
        request = getattr(answers[0], "request", None)
        doc_id = None if request is None else self._true_doc_id(request.doc_id)
        place = f"{self.task_name} doc {doc_id}"
        hash_of_doc = doc_hash(doc)
        if request is not None and doc_hash(request.doc) != hash_of_doc:
            # The harness's cached requests know nothing of --samples.
            raise TaskError(f"{place}: the requests are another doc's; run without --cache_requests or --samples")
        log_likelihoods = tuple(_checked([float(answer[0]) for answer in answers], place))
        fields = self._orders(asked, len(choices), place)
        if queried:
            own_answer = int(np.argmax(log_likelihoods))  # the first of equals, as the harness counts
            fields["p_true"] = judged(self.options.p_true, queried[own_answer], nested=self._queries_are_nested)
        if gold is not None and isinstance(scores, TokenScores):
            fields |= self._distributions(scores)
            if self.options.temperatures:
                fields["temperatures"] = on_grid(answers, gold, self.options.n_bins)
        return Record(
            task=self.task_name,
            doc_id=doc_id,
            doc_hash=hash_of_doc,
            prompt_hash=hash_string(request.arguments[0]) if request else "",
            kind="multiple_choice",
            log_likelihoods=log_likelihoods,
            gold=gold,
            choice_lengths=tuple(len(choice) for choice in choices),
            **fields_of(answers, getattr(scores, "certificate", {})),
            **fields,
        )


def doc_hash(doc: Any) -> str:
    """Return the harness's own hash of a doc."""
    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def _checked(log_likelihoods: list[float], place: str) -> list[float]:
    for index, value in enumerate(log_likelihoods):
        if not value < float("inf"):  # nan or +inf; -inf is a probability of 0
            raise ValueError(f"{place}: the log-likelihood of choice {index} is {value}")
    if max(log_likelihoods, default=float("-inf")) == float("-inf"):
        raise ValueError(f"{place}: no choice has a finite log-likelihood ({log_likelihoods})")
    return log_likelihoods


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
