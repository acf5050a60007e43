"""Answers that the model writes: how sure of their tokens it is, and whether they are right."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import apply_template, hash_string

from lm_eval_calibration.backends import (
    FOLLOW_UP_REQUEST_TYPE,
    GENERATION_REQUEST_TYPE,
    SCORING_REQUEST_TYPE,
    GeneratedText,
    TokenScores,
    can_score_texts,
)
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.code_eval import CODE_EVAL
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pools import Statistic
from lm_eval_calibration.records import OTHER_FILTER, RECORD_KEY, Generation, GenerationRecord, Sample
from lm_eval_calibration.tasks.aggregation import MetricStatistic
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.bounds import BOUNDS
from lm_eval_calibration.tasks.confidences.follow_up import FollowUp
from lm_eval_calibration.tasks.confidences.p_true import QueryRequests, judged
from lm_eval_calibration.tasks.confidences.verbalized import REPLY, SETTINGS, UNPARSED, question_about, stated
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.generation_metrics import (
    GENERATION_TABLE,
    SAMPLED_ACC,
    SELF_CONSISTENCY,
    TOKEN_ACCURACY,
    TokenAccuracy,
)
from lm_eval_calibration.tasks.options import nearest
from lm_eval_calibration.tasks.views import P_TRUE, VERBALIZED

_REFERENCE = 1
"""Number of a doc's request that scores the reference answer; the one that generates is 0."""


class GeneratedAnswerTask(BaseTask):
    """A task whose answers are written by the model: an answer is right where a metric of its own says 1.

    One filter's answers are judged (the first, or ``calibration: {filter: NAME}``) by one metric (the first, or
    ``correct: NAME``). The stock metrics of all filters stay as they are.

    Attributes:
        judged_filter: the filter whose answers are judged.
    """

    _metric_fn_list: dict[str, Any]

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        ours = {*self.calibration.metrics, TOKEN_ACCURACY, SAMPLED_ACC, UNPARSED}
        ours |= {"acc"} if self.calibration.adds_acc else set()
        self._stock_metrics = {name: fn for name, fn in self._metric_fn_list.items() if name not in ours}
        names = [ensemble.name for ensemble in self._filters]
        self.judged_filter = self.options.filter or names[0]
        if self.judged_filter not in names:
            raise TaskError(
                f"{self.calibration.where}: metadata.calibration.filter is {self.judged_filter!r}"
                f"{nearest(self.judged_filter, names)}; the filters are {', '.join(names)}"
            )
        self._has_reference = self._reference(self.task_docs[0]) is not None
        self._has_probabilities = self._has_distributions = True
        self._queries: QueryRequests | None = None
        self._queries_are_nested = False
        self._question: FollowUp | None = None
        self._said = {P_TRUE: False, VERBALIZED: False}  # whether the model has answered these questions
        self._sample_answers: dict[int, list[Any]] = {}  # by doc id: what the filter makes of each sample alone

    @property
    def requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics, which a group's file can't know."""
        reference = (TOKEN_ACCURACY,) if self._has_reference else ()
        return ("acc", *self.calibration.metrics, *reference, *((UNPARSED,) if self.options.verbalized else ()))

    def _statistic(self, name: str) -> Statistic:
        return (
            TokenAccuracy()
            if name == TOKEN_ACCURACY
            else MetricStatistic.of(GENERATION_TABLE[name], self.options.n_bins)
        )

    # --- docs --------------------------------------------------------------------------------------------------------

    def _reference(self, doc: dict[str, Any]) -> str | None:
        """Return the text whose tokens are scored, delimiter included; None where the task has none."""
        template = self.options.reference
        if template is None:
            target = self.doc_to_target(doc)
            if isinstance(target, list | tuple):
                target = target[0] if target else ""
            delimiter = self.config.target_delimiter or ""
            return f"{delimiter}{target}" if isinstance(target, str) and target else ""
        if not template:
            return None
        return str(doc[template] if template in doc else apply_template(template, doc))

    # --- requests ----------------------------------------------------------------------------------------------------

    def _prepare(self, lm: Any) -> None:
        self._has_reference = self._reference(self.task_docs[0]) is not None
        if self._has_reference and lm is not None and not can_score_texts(lm):
            self._has_reference = False
            warn_once(
                f"{self.task_name}: the backend scores no text that it is given: full_ece and token_accuracy of the "
                "reference answers are left out"
            )
        if self.options.p_true:
            self._queries = QueryRequests.of(self.options.p_true, self._chat_template, self.calibration.where)
            self._queries_are_nested = self._queries.is_nested(lm)
        if self.options.verbalized:
            self._question = question_about(self._chat_template, self.calibration.where)

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests, and one for the reference answer of each doc that has one."""
        super().build_all_requests(**kwargs)
        self._instances = [r for r in self.instances if self._has_reference or r.idx != _REFERENCE]

    def _make_ours(self, request: Any) -> None:
        if request.idx == _REFERENCE:
            request.request_type = SCORING_REQUEST_TYPE
        elif self._queries or self._question:
            request.request_type = FOLLOW_UP_REQUEST_TYPE
            request.follow_ups = partial(self._follow_ups, request)
        else:
            request.request_type = GENERATION_REQUEST_TYPE

    def queries_about(self, request: Instance, text: str) -> list[Instance]:
        """Return the requests by which P(true) of an answer is asked for, the option ``p_true`` being set.

        Args:
            request: that for the answer.
            text: the answer.
        """
        assert self._queries is not None
        return self._follow_ups(request, text)[: len(self._queries.continuations)]

    def _follow_ups(self, request: Instance, text: str) -> list[Instance]:
        """Return the requests that ask about an answer: two for P(true), then one for what it says in words."""
        context = request.args[0]
        asked: list[tuple[str, tuple[Any, ...]]] = []
        if self._queries is not None:
            asked += [(SCORING_REQUEST_TYPE, pair) for pair in self._queries.after(context, text)]
        if self._question is not None:
            asked.append((GENERATION_REQUEST_TYPE, (self._question.prompt(context, text), dict(SETTINGS))))
        follow_ups = [
            Instance(request_type, request.doc, arguments, i, request.metadata)
            for i, (request_type, arguments) in enumerate(asked)
        ]
        for follow_up in follow_ups:
            self._set_wishes(follow_up)
        return follow_ups

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Any]:
        """Return the stock task's request, and after it one for the tokens of the reference answer."""
        request = ConfigurableTask.construct_requests(self, doc, ctx, **kwargs)
        reference = self._reference(doc) if self._has_reference else None
        if not reference:
            return [request]
        name, doc_id, _ = request.metadata
        return [request, Instance("loglikelihood", doc, (ctx, reference), _REFERENCE, (name, doc_id, 1))]

    # --- results -----------------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Filter what was generated, and that alone; run programs, if the task judges by running them."""
        written = [instance for instance in self._instances if instance.idx != _REFERENCE]
        references = [instance for instance in self._instances if instance.idx == _REFERENCE]
        texts = [text for instance in written for text in instance.resps]
        self._has_probabilities = all(isinstance(t, GeneratedText) and t.has_probabilities for t in texts)
        replies = [getattr(text, "follow_up_answers", ()) for text in texts]  # of a text from a file: none
        self._said = {
            P_TRUE: self._queries is not None and all(r and None not in r[:2] for r in replies),
            VERBALIZED: self._question is not None and all(r and r[-1] is not None for r in replies),
        }
        self._has_distributions = all(
            isinstance(answer, TokenScores) and answer.has_distributions
            for instance in references
            for answer in instance.resps
        )
        self._full_ece_is_exact = self._settles_full_ece(
            answer for instance in references for answer in instance.resps if isinstance(answer, TokenScores)
        )
        for ensemble in self._filters:
            ensemble.apply(written)
            for instance in written:
                answer = instance.filtered_resps[ensemble.name]
                instance.filtered_resps[ensemble.name] = self._knowing(answer, instance, ensemble.name)
            for instance in references:
                instance.filtered_resps[ensemble.name] = instance.resps[0]
        self._sample_answers = self._answers_of_samples(written)
        if self._UNSAFE and not self._predicts_only:
            with CODE_EVAL.collecting():
                for instance in written:
                    answers = [answer.plain() for answer in instance.filtered_resps.values()]
                    for answer in [*answers, *self._sample_answers.get(instance.doc_id, ())]:
                        self._stock_results(instance.doc, answer)

    @property
    def _UNSAFE(self) -> bool:  # noqa: N802
        return bool(getattr(self, "UNSAFE_CODE", False))

    def _knowing(self, answer: Any, instance: Instance, name: str) -> "_Text | _Texts":
        if not isinstance(answer, str | list):
            raise TaskError(f"{self.calibration.where}: the filter {name} gives {answer!r}, neither text nor texts")
        known: _Text | _Texts = (_Text if isinstance(answer, str) else _Texts)(answer)
        known.instance, known.filter = instance, name
        return known

    def _answers_of_samples(self, written: Sequence[Instance]) -> dict[int, list[Any]]:
        """Return what the filter makes of each sample of a doc alone, where there are several."""
        several = [instance for instance in written if len(instance.resps) > 1]
        alone = [
            SimpleNamespace(resps=[text], doc=instance.doc, filtered_resps={}, doc_id=instance.doc_id)
            for instance in several
            for text in instance.resps
        ]
        if not alone:
            return {}
        ensemble = next(ensemble for ensemble in self._filters if ensemble.name == self.judged_filter)
        try:
            ensemble.apply(alone)
        except AssertionError as error:  # take_first_k wants k samples
            raise TaskError(
                f"{self.calibration.where}: the filter {self.judged_filter} can't make an answer of one sample alone "
                f"({error}); name another with metadata.calibration.filter"
            ) from error
        answers: dict[int, list[Any]] = {}
        for sample in alone:
            answers.setdefault(sample.doc_id, []).append(sample.filtered_resps[self.judged_filter])
        return answers

    def outcomes(self, requests: Sequence[Instance], texts: Sequence[str]) -> list[int | None]:
        """Return whether answers are right, by the filter and the metric that judge: 1 or 0.

        None where the metric says something between. The task's requests are these from then on.

        Args:
            requests: those for the answers.
            texts: what was written to each.
        """
        for request, text in zip(requests, texts, strict=True):
            request.resps = [text]
        self._instances = list(requests)
        self.apply_filters()
        answers = [(request.doc, request.filtered_resps[self.judged_filter].plain()) for request in requests]
        return [self._correct(self._stock_results(doc, answer)) for doc, answer in answers]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the stock task's metrics and, for the filter that is judged, the doc's record under ours."""
        answer: _Text | _Texts = results[0]
        stock = {"bypass": None} if self._predicts_only else self._stock_results(doc, answer.plain())
        if answer.filter != self.judged_filter:
            return {**stock, **self._only_logged({RECORD_KEY: f"{OTHER_FILTER}{self.judged_filter}"})}
        scores = results[_REFERENCE] if len(results) > 1 else None
        record = self._answer_record(doc, answer.instance, stock, scores)
        logged: dict[str, Any] = {}
        if "verbalized" in record.stated:  # the reply beside what was read of it; the record holds no texts
            logged[REPLY] = str(answer.instance.resps[0].follow_up_answers[-1])
        if self._predicts_only:
            return self._predicted(record, logged)
        names = self.calibration.metrics
        ours = [name for name in names if self._is_available(name)]
        if self._has_reference and self._has_distributions:
            ours.append(TOKEN_ACCURACY)
            if "full_ece" in names and not self._full_ece_is_exact:
                ours += BOUNDS
        logged[TOKEN_ACCURACY] = "unavailable"
        return self._result(record, {**stock, **self._means(record, stock)}, ours, logged)

    def _is_available(self, name: str) -> bool:
        if name.endswith(SELF_CONSISTENCY):
            return bool(self._sample_answers)
        for suffix, is_said in self._said.items():
            if name.endswith(suffix):
                return is_said
        is_of_tokens = GENERATION_TABLE[name].metric.kind == "full_vocabulary"
        if not is_of_tokens:
            return self._has_probabilities
        return self._has_reference and self._has_distributions and self._full_ece_is_exact

    def _means(self, record: GenerationRecord, stock: Mapping[str, Any]) -> dict[str, float]:
        means: dict[str, float] = {}
        if self.calibration.adds_acc:
            value = stock[self._correct_metric(stock)]
            means["acc"] = float(value if record.correct is None else record.correct)
        if (majority := record.generation.majority) is not None:
            means[SAMPLED_ACC] = float("nan") if majority[1] is None else float(majority[1])
        if "verbalized" in record.stated:
            means[UNPARSED] = float(record.stated["verbalized"].confidence is None)
        return means

    @contextmanager
    def _only_stock_metrics(self) -> Iterator[None]:
        """The harness computes every listed metric of an answer; ours are none of one answer alone."""
        listed, self._metric_fn_list = self._metric_fn_list, self._stock_metrics
        try:
            yield
        finally:
            self._metric_fn_list = listed

    def _stock_results(self, doc: dict[str, Any], answer: Any) -> dict[str, Any]:
        with self._only_stock_metrics():
            results: dict[str, Any] = ConfigurableTask.process_results(self, doc, [answer])
        return results

    def _correct_metric(self, stock: Mapping[str, Any]) -> str:
        name = self.options.correct or next(iter(stock), "")
        if name not in stock:
            raise TaskError(
                f"{self.calibration.where}: metadata.calibration.correct is {name!r}{nearest(name, stock)}; the task "
                f"has {', '.join(stock)}"
            )
        return name

    def _correct(self, stock: Mapping[str, Any]) -> int | None:
        """Return 1 or 0, or None where the metric says something between."""
        value = stock[self._correct_metric(stock)]
        return int(value) if value in (0, 1) else None

    def _answer_record(
        self, doc: dict[str, Any], request: Instance, stock: Mapping[str, Any], scores: TokenScores | None
    ) -> GenerationRecord:
        identity = self._identity(doc, request)
        samples = () if self._predicts_only else self._samples(doc, request)
        correct = None if self._predicts_only else samples[0].correct if samples else self._correct(stock)
        text = request.resps[0]
        if scores is not None:
            fields = self._distributions(scores)
        else:  # no token of a reference
            fields = {"log_probs": (), "large_probs": ()} if self._has_reference and self._has_distributions else {}
        confidences = {}
        if self._said[P_TRUE]:
            confidences["p_true"] = judged(
                self.options.p_true, text.follow_up_answers[:2], nested=self._queries_are_nested
            )
        if self._said[VERBALIZED]:
            confidences["verbalized"] = stated(str(text.follow_up_answers[-1]))
        certificate = dict(getattr(text, "certificate", {}))
        if scores is not None:
            certificate["reference"] = dict(scores.certificate)
        return GenerationRecord(
            **identity,
            prompt_hash=hash_string(request.arguments[0]),
            generation=Generation(
                text_hash=hash_string(str(text)),
                metric="" if self._predicts_only else self._correct_metric(stock),
                filter=self.judged_filter,
                correct=correct,
                token_log_probs=_log_probs(text),
                samples=samples,
            ),
            certificate=certificate,
            stated=confidences,
            **fields,
        )

    def _samples(self, doc: dict[str, Any], request: Instance) -> tuple[Sample, ...]:
        """Judge each sample's own answer; equal answers are judged once."""
        judged: dict[str, int | None] = {}
        samples = []
        for text, answer in zip(request.resps, self._sample_answers.get(request.doc_id, ()), strict=False):
            key = str(hash_string(str(answer)))
            if key not in judged:
                judged[key] = self._correct(self._stock_results(doc, answer))
            samples.append(Sample(str(hash_string(str(text))), key, judged[key], _log_probs(text)))
        return tuple(samples)


def _log_probs(text: Any) -> tuple[float, ...] | None:
    log_probs = getattr(text, "token_log_probs", None)
    return None if log_probs is None else tuple(log_probs.tolist())


class _Text(str):
    """A filtered answer that knows its request: ``process_results`` is told neither doc id nor filter."""

    instance: Instance
    filter: str

    def plain(self) -> str:
        """Return the answer as the harness's metrics take it."""
        return str(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # other ranks have no use for the request


class _Texts(list[Any]):
    """The same for a filter that gives a list."""

    instance: Instance
    filter: str

    def plain(self) -> list[Any]:
        """Return the answers as the harness's metrics take them."""
        return list(self)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)
