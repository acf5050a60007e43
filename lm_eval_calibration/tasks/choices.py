"""A multiple-choice task: its metrics, and calibration of the choices' probabilities beside them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import hash_string

from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, SCORING_REQUEST_TYPE, TokenScores
from lm_eval_calibration.backends.thinking import reason_for_thinking
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records import ChoicesRecord, StatedConfidence
from lm_eval_calibration.tasks.any_task import SUFFIX
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.bounds import BOUNDS
from lm_eval_calibration.tasks.confidences.elicitation import ANSWER, FollowUpElicitation, ScoredChoices
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.docs import answer_of, gold_index, problem_of_choices, usable_log_likelihoods
from lm_eval_calibration.tasks.first_token import UNASSIGNED_MASS, fields_of, warn_of_open_mass
from lm_eval_calibration.tasks.token_temperatures import on_grid
from lm_eval_calibration.tasks.variants import base_of

Replies = Mapping[str, Mapping[Any, Sequence[Any]]]
"""Replies to the requests that confidence sources added: by the source's name, then by what tells these apart."""


class ChoiceTask(BaseTask):
    """A ``multiple_choice`` task with calibration.

    A gold label outside its choices is an error where a user's own file describes the docs. The harness's own tasks
    have some that nobody can mend: those count in acc as they do there.
    """

    table = "choices"

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        self._is_of_first_token = False
        self._requests_of: dict[int, list[Any]] = {}  # by doc id, in the order of their numbers

    @property
    def _requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the options add, which a group's file can't know."""
        beside = [name for source in self.sources for name in source.stock_metrics]
        plain = [name for name in self.calibration.metrics if name in self.options.metrics or name not in CATALOG]
        bounds = () if self._full_ece_is_exact else tuple(BOUNDS)
        open_mass = (UNASSIGNED_MASS,) if self._is_of_first_token else ()
        return (*beside, *plain, *self.requested_means, *bounds, *open_mass)

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
        """Get ready for a run; raise TaskError where the model would think before it names a choice."""
        if reason := reason_for_thinking(lm, self._chat_template):
            name, _ = base_of(self.task_name) or (self.task_name, "")
            base = name.removesuffix(SUFFIX)
            raise TaskError(
                f"{self.calibration.where}: the model {reason}, so no choice can be read from what it says first. "
                f"{base}_verbalized{SUFFIX} and {base}_verbalized_1s{SUFFIX} let it think and write a choice, as a "
                "generation task by chain of thought does"
            )
        super()._prepare(lm)

    def stock_requests(self, doc: dict[str, Any], prompt: Any, **options: Any) -> list[Any]:
        """Return the stock task's requests for a doc and its prompt."""
        requests: list[Any] = ConfigurableTask.construct_requests(self, doc, prompt, **options)
        return requests

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Any]:
        """Return the stock task's requests, and after them those that confidence sources add, questions first."""
        requests = self.stock_requests(doc, ctx, **kwargs)
        choices = requests[: len(self.doc_to_choice(doc))]  # acc_mutual_info has others after these
        for elicitation in sorted(self.elicitations, key=lambda e: not isinstance(e, FollowUpElicitation)):
            for key, request in elicitation.requests(doc, ctx, choices, **kwargs):
                request.idx, request.added_by = len(requests), (elicitation.name, key)
                requests.append(request)
        for request in requests:
            request.settings = self._settings
        return requests

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests; those about a doc's answer wait for the scores of its choices."""
        super().build_all_requests(**kwargs)
        docs: dict[int, dict[Any, list[Any]]] = {}  # requests by doc and what they were added by
        for request in sorted(self._instances, key=lambda request: request.idx):
            docs.setdefault(request.doc_id, {}).setdefault(getattr(request, "added_by", None), []).append(request)
        for elicitation in self.elicitations:
            for of_doc in docs.values():
                if about_answer := of_doc.get((elicitation.name, ANSWER)):
                    elicitation.wait(about_answer, of_doc[None][: len(self.doc_to_choice(about_answer[0].doc))])

    @property
    def _settings(self) -> dict[str, Any]:
        """What the added requests depend on."""
        return {e.name: e.setting for e in self.elicitations if e.setting is not None}

    def _make_ours(self, request: Any) -> None:
        is_written = isinstance(request.args[1], Mapping)  # generation settings, not a continuation
        request.request_type = GENERATION_REQUEST_TYPE if is_written else SCORING_REQUEST_TYPE

    def _check_cached_requests(self) -> None:
        for request in self._instances:
            settings = getattr(request, "settings", {})
            is_old = hasattr(request, "queried") or hasattr(request, "rotation")
            if settings != self._settings or is_old or self._waits_in_vain(request):
                kept = ", ".join(f"{name} {setting}" for name, setting in settings.items()) or "the choices alone"
                raise TaskError(
                    f"{self.task_name}: the cached requests were made with other options ({kept}): run with "
                    "--cache_requests refresh"
                )

    def _waits_in_vain(self, request: Any) -> bool:
        """Whether a cached request was to wait for an answer, and this run's backend lets none wait."""
        name, key = getattr(request, "added_by", ("", None))
        return key == ANSWER and not any(e.name == name and e.can_wait for e in self.elicitations)

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter as the stock task does; look at what the answers leave open."""
        super().apply_filters()
        self._requests_of = {}
        docs: dict[tuple[int, Any], list[TokenScores]] = {}  # by doc and order of its choices
        for instance in sorted(self._instances, key=lambda request: request.idx):
            self._requests_of.setdefault(instance.doc_id, []).append(instance)
            order = getattr(instance, "added_by", None)
            for answer in instance.filtered_resps.values():
                if isinstance(answer, TokenScores) and not self._is_follow_up(order):
                    docs.setdefault((instance.doc_id, order), []).append(answer)
        self._full_ece_is_exact = self._determines_full_ece(answer for answers in docs.values() for answer in answers)
        in_own_order = [answers for (_, order), answers in docs.items() if order is None]
        self._is_of_first_token = warn_of_open_mass(self.task_name, in_own_order)

    def _is_follow_up(self, added_by: tuple[str, Any] | None) -> bool:
        follow_ups = [e.name for e in self.elicitations if isinstance(e, FollowUpElicitation)]
        return added_by is not None and added_by[0] in follow_ups

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the stock task's metrics and, under every calibration metric's name, the doc's record."""
        answers, replies = self._sorted(results)
        record = self._record(doc, answers, replies)
        if self._predicts_only:
            return self._predicted(record, {})
        with np.errstate(invalid="ignore"):  # of log-likelihoods that are not finite, which the record leaves out
            stock = ConfigurableTask.process_results(self, doc, answers)
        names = self.calibration.metrics
        means = {name: value for name, value in stock.items() if name not in names} | self._means_of(record)
        if self._is_of_first_token:
            means[UNASSIGNED_MASS] = record.extra[UNASSIGNED_MASS]
        has_distributions = all(isinstance(answer, TokenScores) and answer.has_distributions for answer in answers)
        ours = [
            name
            for name, row in self.rows.items()
            if row.source.is_in(record)
            and (row.metric.kind != "full_vocabulary" or (has_distributions and self._full_ece_is_exact))
        ]
        if record.large_probs is not None and "full_ece" in names and not self._full_ece_is_exact:
            ours += BOUNDS
        return self._result(record, means, ours)

    def _sorted(self, results: Sequence[Any]) -> tuple[list[Any], Replies]:
        """Return the answers to the stock task's requests, and the replies to those that sources added."""
        request = getattr(results[0], "request", None)
        requests = [None] * len(results) if request is None else self._requests_of[request.doc_id]
        answers: list[Any] = []
        replies: dict[str, dict[Any, list[Any]]] = {}
        for request, result in zip(requests, results, strict=True):
            if (added_by := getattr(request, "added_by", None)) is None:
                answers.append(result)
            else:
                replies.setdefault(added_by[0], {}).setdefault(added_by[1], []).append(result)
        return answers, replies

    def _record(self, doc: dict[str, Any], results: Sequence[Any], replies: Replies) -> ChoicesRecord:
        choices = self.doc_to_choice(doc)
        gold = gold_index(self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc), choices)
        answers = results[: len(choices)]  # acc_mutual_info has unconditional ones after these
        scores = answers[0 if gold is None else gold]
        request = getattr(answers[0], "request", None)
        identity = self._identity(doc, request)
        location = f"{self.task_name} doc {identity['doc_id']}"
        log_likelihoods = usable_log_likelihoods(answers)
        fields = self._elicited(ScoredChoices(location, log_likelihoods), replies)
        is_answered = max(log_likelihoods) > -float("inf")
        if is_answered and gold is not None and isinstance(scores, TokenScores):
            fields |= self._distributions(scores)
            if self.options.temperatures:
                fields["temperatures"] = on_grid(answers, gold, self.options.n_bins)
        return ChoicesRecord(
            **identity,
            prompt_hash=hash_string(request.arguments[0]) if request else "",
            log_likelihoods=log_likelihoods,
            gold=gold,
            choice_lengths=tuple(len(choice) for choice in choices),
            abstention=self._abstention(choices),
            **fields_of(answers, getattr(scores, "certificate", {})),
            **fields,
        )

    def _abstention(self, choices: Sequence[str]) -> int | None:
        """Index of the first choice that the option ``abstain`` matches whole; None where it matches none."""
        if not (known := self.options["abstain"]):
            return None
        return next((i for i, choice in enumerate(choices) if re.fullmatch(known, choice.strip())), None)

    def _elicited(self, scored: ScoredChoices, replies: Replies) -> dict[str, Any]:
        """Return the record's fields that confidence sources read in the replies to their requests."""
        answer = answer_of(scored.log_likelihoods)
        fields: dict[str, Any] = {}
        stated: dict[str, StatedConfidence] = {}
        for elicitation in self.elicitations:
            of_source = replies.get(elicitation.name, {})
            if not isinstance(elicitation, FollowUpElicitation):
                fields |= elicitation.fields(scored, of_source)
            elif of_source:
                about_it = of_source[ANSWER] if ANSWER in of_source else of_source[answer]
                stated[elicitation.name] = elicitation.read(about_it)
        return {**fields, "stated": stated}
