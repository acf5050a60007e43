"""Answers that the model writes: how sure of their tokens it is, and whether they are right."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.utils import hash_string

from lm_eval_calibration.backends import (
    FOLLOW_UP_REQUEST_TYPE,
    GENERATION_REQUEST_TYPE,
    SCORING_REQUEST_TYPE,
    GeneratedText,
    TokenScores,
)
from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.harness.code_eval import CODE_EVAL
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.pools import Statistic
from lm_eval_calibration.records import ANSWERED, OTHER_FILTER, RECORD_KEY, Generation, GenerationRecord
from lm_eval_calibration.tasks import views
from lm_eval_calibration.tasks.bounds import BOUNDS
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.filtered_answers import (
    FilteredText,
    FilteredTexts,
    answers_of_texts,
    chain_before,
    knowing_request,
    log_probs_of,
)
from lm_eval_calibration.tasks.final_answers import OUTCOME_SHARES, final_answer
from lm_eval_calibration.tasks.references import reason_unscored, reference_of
from lm_eval_calibration.tasks.token_metrics import TOKEN_ACCURACY, accuracy_of_references
from lm_eval_calibration.tasks.written_answers import WrittenAnswers

_REFERENCE = 1
"""Number of a doc's request that scores the reference answer; the one that generates is 0."""


class GeneratedAnswerTask(WrittenAnswers):
    """A task whose answers are written by the model: an answer is right where a metric of its own is 1.

    One filter's answers are scored (the first, or ``calibration: {filter: NAME}``) by one metric (the first, or
    ``correct: NAME``). The stock metrics of all filters stay as they are.

    Attributes:
        scored_filter: the filter whose answers are scored.
    """

    table = "generation"

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        ours = {
            *self.calibration.metrics,
            *views.means(),
            TOKEN_ACCURACY,
            *(["acc"] if self.calibration.adds_acc else []),
        }
        self._stock_metrics = {name: fn for name, fn in self._metric_fn_list.items() if name not in ours}
        names = [ensemble.name for ensemble in self._filters]
        self.scored_filter = self.options.filter or names[0]
        if self.scored_filter not in names:
            raise TaskError(
                f"{self.calibration.where}: metadata.calibration.filter is {self.scored_filter!r}"
                f"{nearest(self.scored_filter, names)}; the filters are {', '.join(names)}"
            )
        self._has_reference = reference_of(self, self.task_docs[0]) is not None
        self._has_probabilities = self._has_distributions = True
        self._answered: set[str] = set()  # sources whose questions the model has answered
        self._sample_answers: dict[int, list[Any]] = {}  # by doc id: what the filter makes of each sample alone

    @property
    def _requested_metrics(self) -> tuple[str, ...]:
        """Names of the metrics, which a group's file can't know."""
        reference = (TOKEN_ACCURACY,) if self._has_reference else ()
        return ("acc", *self.calibration.metrics, *reference, *self.requested_means, ANSWERED)

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that a group shows only if all its calibrated tasks have them."""
        return (*super().optional_metrics, *OUTCOME_SHARES)

    def _statistic(self, name: str) -> Statistic:
        if name in OUTCOME_SHARES:
            return OUTCOME_SHARES[name]
        return accuracy_of_references() if name == TOKEN_ACCURACY else super()._statistic(name)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _prepare(self, lm: Any) -> None:
        super()._prepare(lm)
        self._has_reference = reference_of(self, self.task_docs[0]) is not None
        if self._has_reference and (reason := reason_unscored(self, lm, self._chat_template)):
            self._has_reference = False
            logger.warning(
                f"{self.task_name}: {reason}: full_ece and token_accuracy of the reference answers are left out"
            )

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the stock task's requests, and one for the reference answer of each doc that has one."""
        super().build_all_requests(**kwargs)
        self._instances = [r for r in self.instances if self._has_reference or r.idx != _REFERENCE]

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Any]:
        """Return the stock task's request, and after it one for the tokens of the reference answer."""
        (request,) = super().construct_requests(doc, ctx, **kwargs)
        reference = reference_of(self, doc) if self._has_reference else None
        if not reference:
            return [request]
        name, doc_id, _ = request.metadata
        return [request, Instance("loglikelihood", doc, (ctx, reference), _REFERENCE, (name, doc_id, 1))]

    def _make_ours(self, request: Any) -> None:
        if request.idx == _REFERENCE:
            request.request_type = SCORING_REQUEST_TYPE
        elif any(elicitation.n_requests != 0 for elicitation in self.elicitations):
            request.request_type = FOLLOW_UP_REQUEST_TYPE
            request.follow_ups = partial(self._follow_ups, request)
        else:
            request.request_type = GENERATION_REQUEST_TYPE

    def _attach_options(self, request: Any) -> None:
        super()._attach_options(request)
        request.wants_top_k = bool(self.options["chain"])
        of_source = next((e.position_in for e in self.elicitations if e.position_in is not None), None)
        request.option_position = None if of_source is None else partial(of_source, request.doc)

    def _follow_ups(self, request: Instance, text: str) -> list[Instance]:
        """Return the requests that question an answer, those of one source after those of another."""
        follow_ups: list[Instance] = []
        for elicitation in self.elicitations:
            for request_type, arguments in elicitation.about_answer(request, text):
                follow_up = Instance(request_type, request.doc, arguments, len(follow_ups), request.metadata)
                follow_up.source = elicitation.name
                self._attach_options(follow_up)
                follow_ups.append(follow_up)
        return follow_ups

    def replies_to(self, text: Any) -> Mapping[str, Sequence[Any]]:
        """Return the replies to the questions about a text, by source; a text from a file has none."""
        found: dict[str, list[Any]] = {elicitation.name: [] for elicitation in self.elicitations}
        replies = getattr(text, "follow_up_answers", ()), getattr(text, "follow_up_sources", ())
        for reply, source in zip(*replies, strict=True):
            found[source].append(reply)
        return found

    def apply_filters(self) -> None:
        """Filter what was generated, and that alone; run programs, if answers are scored by running them."""
        written = [instance for instance in self._instances if instance.idx != _REFERENCE]
        references = [instance for instance in self._instances if instance.idx == _REFERENCE]
        self._see_what_is_known([t for r in written for t in r.resps], [s for r in references for s in r.resps])
        for ensemble in self._filters:
            ensemble.apply(written)
            for instance in written:
                answer = instance.filtered_resps[ensemble.name]
                known = knowing_request(answer, instance, ensemble.name, self.calibration.where)
                instance.filtered_resps[ensemble.name] = known
            for instance in references:
                instance.filtered_resps[ensemble.name] = instance.resps[0]
        sampled = [instance for instance in written if len(instance.resps) > 1]
        self._sample_answers = answers_of_texts(sampled, self.scored_ensemble, self.calibration.where)
        self._compare_filters(written)
        for elicitation in self.elicitations:
            elicitation.see_answers(written)
        if getattr(self, "UNSAFE_CODE", False) and not self._predicts_only:
            with CODE_EVAL.collecting():
                for instance in written:
                    answers = [answer.plain() for answer in instance.filtered_resps.values()]
                    for answer in [*answers, *self._sample_answers.get(instance.doc_id, ())]:
                        self._stock_results(instance.doc, answer)

    def _see_what_is_known(self, texts: Sequence[Any], references: Sequence[Any]) -> None:
        """See what the backend gives of all docs: a metric is computed from all of them, or left out."""
        self._has_probabilities = all(isinstance(t, GeneratedText) and t.has_probabilities for t in texts)
        replies = [self.replies_to(text) for text in texts]
        self._answered = set()
        for elicitation in self.elicitations:
            of_source = [reply[elicitation.name] for reply in replies]
            expected = elicitation.n_requests
            if all(None not in found and expected in (None, len(found)) for found in of_source):
                self._answered.add(elicitation.name)
        scores = [answer for answer in references if isinstance(answer, TokenScores)]
        self._has_distributions = len(scores) == len(references) and all(score.has_distributions for score in scores)
        self._full_ece_is_exact = self._determines_full_ece(scores)

    # --- results -----------------------------------------------------------------------------------------------------

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the stock task's metrics and, for the filter whose answers are scored, the doc's record."""
        answer: FilteredText | FilteredTexts = results[0]
        stock: dict[str, Any] = {"bypass": None} if self._predicts_only else self._stock_results(doc, answer.plain())
        if answer.filter != self.scored_filter:
            return {**stock, **self._only_logged({RECORD_KEY: f"{OTHER_FILTER}{self.scored_filter}"})}
        record = self._answer_record(doc, answer.instance, stock, results[_REFERENCE] if len(results) > 1 else None)
        logged: dict[str, Any] = {}
        for elicitation, replies in self._answered_by(answer.instance.resps[0]):
            logged |= elicitation.logged(replies)
        if self._predicts_only:
            return self._predicted(record, logged)
        outcomes = dict.fromkeys((ANSWERED, record.generation.outcome))
        ours = [name for name, row in self.rows.items() if self._is_available(row, record)]
        if self._has_reference and self._has_distributions:
            ours.append(TOKEN_ACCURACY)
            if "full_ece" in self.calibration.metrics and not self._full_ece_is_exact:
                ours += BOUNDS
        acc: dict[str, Any] = {}
        if self.calibration.adds_acc:
            value = stock[self._correct_metric(stock)]
            acc["acc"] = float(value if record.correct is None else record.correct)
        means = {**stock, **acc, **self._means_of(record)}
        result = self._result(record, means, [*ours, *outcomes], [TOKEN_ACCURACY])
        return result | self._only_logged(logged)

    def _available_in(self, records: Sequence[Any]) -> list[str]:
        rows = [name for name, row in self.rows.items() if any(self._is_available(row, r) for r in records)]
        return [*rows, *dict.fromkeys(record.generation.outcome for record in records)]

    def _answered_by(self, text: Any) -> list[tuple[Any, Sequence[Any]]]:
        """Return the sources whose questions were answered, and the replies to those about a text."""
        replies = self.replies_to(text)
        return [(e, replies[e.name]) for e in self.elicitations if e.name in self._answered]

    def _is_available(self, row: Any, record: GenerationRecord) -> bool:
        if row.metric.kind == "choices":
            return record.options is not None
        if row.source.suffix:
            return bool(row.source.is_in(record))
        if row.metric.kind != "full_vocabulary":
            return self._has_probabilities
        return self._has_reference and self._has_distributions and self._full_ece_is_exact

    def _answer_record(
        self, doc: dict[str, Any], request: Instance, stock: Mapping[str, Any], scores: TokenScores | None
    ) -> GenerationRecord:
        identity = self._identity(doc, request)
        samples = () if self._predicts_only else self._samples(doc, request)
        correct = None if self._predicts_only else samples[0].correct if samples else self._correct(stock)
        text = request.resps[0]
        certificate = dict(getattr(text, "certificate", {}))
        fields: dict[str, Any] = {}
        if scores is not None:
            fields = self._distributions(scores)
            certificate["reference"] = dict(scores.certificate)
        elif self._has_reference and self._has_distributions:  # no token of a reference
            fields = {"log_probs": (), "large_probs": ()}
        answer = request.filtered_resps[self.scored_filter].plain()
        found = {}
        for elicitation, replies in self._answered_by(text):
            found[elicitation.name] = elicitation.confidence_of(text, answer, replies)
            fields |= elicitation.fields_of_answer(request, replies)
        located = self.locate(doc, text, answer)
        final = final_answer(text, located, refusal=self.options.refusal, tail=self.options["tail"])
        return GenerationRecord(
            **identity,
            prompt_hash=hash_string(request.arguments[0]),
            generation=Generation(
                text_hash=hash_string(str(text)),
                metric="" if self._predicts_only else self._correct_metric(stock),
                filter=self.scored_filter,
                correct=correct,
                token_log_probs=log_probs_of(text),
                samples=samples,
                answer=final,
                thought_log_probs=log_probs_of(text, "thought_log_probs"),
                chain=chain_before(final, text, self.options["chain"]),
            ),
            certificate=certificate,
            stated={name: stated for name, stated in found.items() if stated is not None},
            **fields,
        )
