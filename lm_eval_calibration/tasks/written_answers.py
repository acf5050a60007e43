"""What the stock task's filters and metric make of texts: answers, their places, and whether they are right."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import hash_string

from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.records import Sample
from lm_eval_calibration.tasks.answer_spans import UNKNOWN, LocatedAnswer
from lm_eval_calibration.tasks.filtered_answers import located_by, log_probs_of
from lm_eval_calibration.tasks.final_answers import final_answer, warn_of_strict_filter
from lm_eval_calibration.tasks.formed_replies import FormedReplyTask


class WrittenAnswers(FormedReplyTask):
    """Scores what the model writes, as the stock task does."""

    _metric_fn_list: dict[str, Any]
    _stock_metrics: dict[str, Any]
    _sample_answers: Mapping[int, Sequence[Any]]

    def outcomes(self, requests: Sequence[Instance], texts: Sequence[str]) -> list[int | None]:
        """Return whether answers are right, by the filter and the metric that score them: 1 or 0.

        None where the metric is between. The task's requests are these from then on.

        Args:
            requests: those for the answers.
            texts: what was written to each.
        """
        for request, text in zip(requests, texts, strict=True):
            request.resps = [text]
        self._instances = list(requests)
        self.apply_filters()
        answers = [(request.doc, request.filtered_resps[self.scored_filter].plain()) for request in requests]
        return [self.outcome_of(doc, answer) for doc, answer in answers]

    def _stock_results(self, doc: dict[str, Any], answer: Any) -> dict[str, Any]:
        # The harness computes every listed metric of an answer; ours are none of one answer alone.
        listed, self._metric_fn_list = self._metric_fn_list, self._stock_metrics
        try:
            results: dict[str, Any] = ConfigurableTask.process_results(self, doc, [answer])
        finally:
            self._metric_fn_list = listed
        return results

    def outcome_of(self, doc: dict[str, Any], answer: Any) -> int | None:
        """Return whether an answer to a doc is right: 1 or 0, or None where the metric is between."""
        return self._correct(self._stock_results(doc, answer))

    def _correct_metric(self, stock: Mapping[str, Any]) -> str:
        name = self.options.correct or next(iter(stock), "")
        if name not in stock:
            raise TaskError(
                f"{self.calibration.where}: metadata.calibration.correct is {name!r}{nearest(name, stock)}; the task "
                f"has {', '.join(stock)}"
            )
        return name

    def _correct(self, stock: Mapping[str, Any]) -> int | None:
        """Return 1 or 0, or None where the metric is between."""
        value = stock[self._correct_metric(stock)]
        return int(value) if value in (0, 1) else None

    @property
    def scored_ensemble(self) -> Any:
        """The filter whose answers are scored."""
        return next(ensemble for ensemble in self._filters if ensemble.name == self.scored_filter)

    def _compare_filters(self, written: Sequence[Instance]) -> None:
        """See in how many texts each filter finds an answer."""
        if len(self._filters) > 1:
            found = {
                ensemble.name: sum(
                    located_by(ensemble, r.resps[0], r.doc, r.filtered_resps[ensemble.name].plain()).is_found
                    for r in written
                )
                for ensemble in self._filters
            }
            warn_of_strict_filter(self.task_name, self.scored_filter, found, len(written))

    def locate(self, doc: dict[str, Any], text: str, answer: Any = UNKNOWN) -> LocatedAnswer:
        """Return where in a text its answer stands, which the scored filter makes of it."""
        return located_by(self.scored_ensemble, text, doc, answer)

    def _samples(self, doc: dict[str, Any], request: Instance) -> tuple[Sample, ...]:
        """Return a doc's samples, each with whether its own answer is right; equal texts are scored once."""
        correct: dict[str, int | None] = {}
        distinct: list[Any] = []  # answers that the task's metric tells apart
        samples = []
        for text, answer in zip(request.resps, self._sample_answers.get(request.doc_id, ()), strict=False):
            key = str(hash_string(str(answer)))
            if key not in correct:
                correct[key] = self.outcome_of(doc, answer)
            same = next((other for other in distinct if self._is_equal(doc, answer, other)), None)
            if same is None:
                distinct.append(same := answer)
            final = final_answer(text, self.locate(doc, text, answer), refusal=self.options.refusal)
            hashes = str(hash_string(str(text))), str(hash_string(str(same)))
            place: dict[str, Any] = {"outcome": final.outcome, "span": final.span, "tokens": final.tokens}
            samples.append(Sample(*hashes, correct[key], log_probs_of(text), **place))
        return tuple(samples)

    def _is_equal(self, doc: dict[str, Any], answer: Any, other: Any) -> bool:
        """Whether two answers are equal, or the task's metric calls one right where the other is gold."""
        if answer == other:
            return True
        if not self._has_text_targets or not (isinstance(answer, str) and isinstance(other, str)):
            return False
        with replaced(self, doc_to_target=lambda *_: other):
            return self.outcome_of(doc, answer) == 1

    @property
    def _has_text_targets(self) -> bool:
        """Whether another target can be put in the place of a doc's."""
        is_plain = not callable(self.config.process_results) and self.config.doc_to_choice is None
        return is_plain and not self.multiple_target and not getattr(self, "UNSAFE_CODE", False)
