"""A multiple-choice task: its metrics, and calibration of the choices' probabilities beside them."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import hash_string

from lm_eval_calibration.backends import SCORING_REQUEST_TYPE, TokenScores
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.log import logger, warn_once
from lm_eval_calibration.harness.pools import Statistic
from lm_eval_calibration.metrics import CATALOG, answer_changes, position_spread
from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.tasks.aggregation import MetricStatistic
from lm_eval_calibration.tasks.base import BaseTask, doc_hash
from lm_eval_calibration.tasks.bounds import BOUNDS
from lm_eval_calibration.tasks.choice_docs import gold_index, problem_of_choices
from lm_eval_calibration.tasks.confidences.p_true import QueryRequests, judged, query_requests
from lm_eval_calibration.tasks.configuration import Configuration, order_metrics
from lm_eval_calibration.tasks.first_token import UNASSIGNED_MASS, fields_of, say_what_is_open
from lm_eval_calibration.tasks.permutation import Slots, are_labels, find_slots, in_own_order, replace_last, rotations
from lm_eval_calibration.tasks.temperature import on_grid
from lm_eval_calibration.tasks.views import TABLE, permuted


class ChoiceTask(BaseTask):
    """A ``multiple_choice`` task with calibration.

    A gold label outside its choices is an error where a user's own file describes the docs. The harness's own tasks
    have some that nobody can mend: those count in acc as they do there.
    """

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        self._is_of_first_token = False
        self._queries: QueryRequests | None = None
        self._queries_are_nested = False

    @property
    def requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options add, which a group's file can't know."""
        plain = [name for name in self.calibration.metrics if name in self.options.metrics or name not in CATALOG]
        norm = ["acc_norm"] if self.options.confidence == "length_normalized" else []
        bounds = () if self._full_ece_is_exact else tuple(BOUNDS)
        open_mass = (UNASSIGNED_MASS,) if self._is_of_first_token else ()
        return (*norm, *plain, *order_metrics(self.options), *bounds, *open_mass)

    def _statistic(self, name: str) -> Statistic:
        return MetricStatistic.of(TABLE[name], self.options.n_bins)

    def aggregation(self) -> dict[str, Any]:
        """Return the harness's aggregations, with one for what first tokens leave open."""
        return super().aggregation() | {UNASSIGNED_MASS: mean}

    def _problem(self, doc: dict[str, Any], *, labels_too: bool) -> str | None:
        return problem_of_choices(self, doc, labels_too=labels_too)

    def _gold_texts(self) -> Sequence[str]:
        choices: Sequence[str] = self.doc_to_choice(self.task_docs[0])
        return choices

    # --- requests ----------------------------------------------------------------------------------------------------

    def _prepare(self, lm: Any) -> None:
        if self.options.p_true:
            self._queries = QueryRequests.of(self.options.p_true, self._chat_template, self.calibration.where)
            self._queries_are_nested = self._queries.is_nested(lm)

    def _make_ours(self, request: Any) -> None:
        request.request_type = SCORING_REQUEST_TYPE

    def _check_cached_requests(self) -> None:
        self._check_orders()
        self._check_queries()

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
        warn_once(f"{self.task_name}: its docs list no choices, so it is asked in one order and has no order metrics")
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
        """Filter as the stock task does; look at what the answers leave open."""
        super().apply_filters()
        docs: dict[tuple[int, int], list[TokenScores]] = {}  # by doc and order of its choices
        for instance in self._instances:
            for answer in instance.filtered_resps.values():
                if isinstance(answer, TokenScores) and not hasattr(instance, "queried"):
                    docs.setdefault((instance.doc_id, getattr(instance, "rotation", 0)), []).append(answer)
        self._full_ece_is_exact = self._settles_full_ece(answer for answers in docs.values() for answer in answers)
        as_asked = [answers for (_, rotation), answers in docs.items() if rotation == 0]
        self._is_of_first_token = say_what_is_open(self.task_name, as_asked)

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
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
        if self._predicts_only:
            return self._predicted(record, {})
        stock = ConfigurableTask.process_results(self, doc, asked[0])
        names = self.calibration.metrics
        means = {name: value for name, value in stock.items() if name not in names} | self._order_metrics(record)
        if self._is_of_first_token:
            means[UNASSIGNED_MASS] = record.extra[UNASSIGNED_MASS]
        ours = [name for name in names if self._is_available(name, results, record)]
        if record.large_probs is not None and "full_ece" in names and not self._full_ece_is_exact:
            ours += BOUNDS
        return self._result(record, means, ours, {})

    def _is_available(self, name: str, results: Sequence[Any], record: ChoicesRecord) -> bool:
        if TABLE[name].view is permuted:
            return record.rotations is not None
        if TABLE[name].metric.kind != "full_vocabulary":
            return True
        known = all(isinstance(answer, TokenScores) and answer.has_distributions for answer in results)
        return known and self._full_ece_is_exact

    def _order_metrics(self, record: ChoicesRecord) -> dict[str, float]:
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

    def _orders(self, asked: Mapping[int, Sequence[Any]], n_choices: int, place: str) -> dict[str, Any]:
        """Return the record's fields of the orders in which the choices were asked."""
        if not (self._is_asked_in_several_orders or self.options.permute == 1):
            return {}
        orders = {
            rotation: in_own_order(_checked([float(answer[0]) for answer in answers[:n_choices]], place), rotation)
            for rotation, answers in sorted(asked.items())
        }
        return {"rotations": tuple(orders), "rotated_log_likelihoods": tuple(orders.values())}

    def _record(
        self, doc: dict[str, Any], asked: Mapping[int, Sequence[Any]], queried: Mapping[int, Sequence[Any]]
    ) -> ChoicesRecord:
        choices = self.doc_to_choice(doc)
        gold = gold_index(self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc), choices)
        answers = asked[0][: len(choices)]  # acc_mutual_info asks for unconditional ones too, after these
        scores = answers[0 if gold is None else gold]
        request = getattr(answers[0], "request", None)
        identity = self._identity(doc, request)
        place = f"{self.task_name} doc {identity['doc_id']}"
        log_likelihoods = tuple(_checked([float(answer[0]) for answer in answers], place))
        fields = self._orders(asked, len(choices), place)
        if queried:
            own_answer = int(np.argmax(log_likelihoods))  # the first of equals, as the harness counts
            p_true = judged(self.options.p_true, queried[own_answer], nested=self._queries_are_nested)
            fields["stated"] = {"p_true": p_true}
        if gold is not None and isinstance(scores, TokenScores):
            fields |= self._distributions(scores)
            if self.options.temperatures:
                fields["temperatures"] = on_grid(answers, gold, self.options.n_bins)
        return ChoicesRecord(
            **identity,
            prompt_hash=hash_string(request.arguments[0]) if request else "",
            log_likelihoods=log_likelihoods,
            gold=gold,
            choice_lengths=tuple(len(choice) for choice in choices),
            **fields_of(answers, getattr(scores, "certificate", {})),
            **fields,
        )


def _checked(log_likelihoods: list[float], place: str) -> list[float]:
    for index, value in enumerate(log_likelihoods):
        if not value < float("inf"):  # nan or +inf; -inf is a probability of 0
            raise ValueError(f"{place}: the log-likelihood of choice {index} is {value}")
    if max(log_likelihoods, default=float("-inf")) == float("-inf"):
        raise ValueError(f"{place}: no choice has a finite log-likelihood ({log_likelihoods})")
    return log_likelihoods
