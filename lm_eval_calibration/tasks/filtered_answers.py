"""Answers as a filter makes them of generated texts, each with the request that it is to."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.records import ChainConfidence, FinalAnswer
from lm_eval_calibration.tasks.answer_spans import UNKNOWN, LocatedAnswer, locate_answer


class FilterOfForms:
    """A filter of the harness that is shown the answer in each reply, not the reply.

    Args:
        ensemble: the harness's filter.
        source: the ``ConfidenceSource`` that sets the form. Of the texts that ``answers_in`` lets the filter see, the
            first in which it finds something counts, and the first of all where it finds nothing.
    """

    def __init__(self, ensemble: Any, source: Any) -> None:
        self.name, self.filters = ensemble.name, ensemble.filters
        self._ensemble, self._source = ensemble, source

    def apply(self, instances: Sequence[Any]) -> None:
        """Set each instance's ``filtered_resps`` of this filter."""
        texts = [[list(self._source.answers_in(str(reply))) for reply in instance.resps] for instance in instances]
        has_answer: dict[int, bool] = {}  # one of its texts at least
        for attempt in range(max(len(shown) for replies in texts for shown in replies)):
            shown = [
                SimpleNamespace(resps=[t[min(attempt, len(t) - 1)] for t in replies], doc=i.doc, filtered_resps={})
                for i, replies in zip(instances, texts, strict=True)
            ]
            self._ensemble.apply(shown)
            for i, (instance, one) in enumerate(zip(instances, shown, strict=True)):
                if attempt == 0 or not has_answer[i]:
                    is_found = any(locate_answer(self._ensemble, text, one.doc).is_found for text in one.resps)
                    if attempt == 0 or is_found:
                        instance.filtered_resps[self.name] = one.filtered_resps[self.name]
                    has_answer[i] = is_found

    def locate(self, reply: str, doc: Mapping[str, Any], answer: Any = UNKNOWN) -> LocatedAnswer:
        """Return where an answer stands in a reply, as :func:`locate_answer` does."""
        located = [(text, locate_answer(self._ensemble, text, doc)) for text in self._source.answers_in(reply)]
        shown, found = next((one for one in located if one[1].is_found), located[0])
        found = found if answer is UNKNOWN else found._replace(answer=answer)
        if found.span is None:
            return found
        shift = self._source.answer_start(reply) - shown.find(located[0][0])  # other texts hold the first in a sentence
        start, end = (place + shift for place in found.span)
        is_there = reply[start:end] == shown[slice(*found.span)]
        return found._replace(span=(start, end) if is_there else None)


def located_by(ensemble: Any, text: str, doc: Mapping[str, Any], answer: Any) -> LocatedAnswer:
    """Return where an answer stands in a text from which a filter, of a form or the harness's, took it."""
    if isinstance(ensemble, FilterOfForms):
        return ensemble.locate(text, doc, answer)
    return locate_answer(ensemble, text, doc, answer)


class FilteredText(str):
    """A filtered answer that knows its request: ``process_results`` is told neither doc id nor filter."""

    instance: Instance
    filter: str

    def plain(self) -> str:
        """Return the answer as the harness's metrics take it."""
        return str(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # other ranks have no use for the request


class FilteredTexts(list[Any]):
    """Filtered answers of a filter that gives a list, which know their request."""

    instance: Instance
    filter: str

    def plain(self) -> list[Any]:
        """Return the answers as the harness's metrics take them."""
        return list(self)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)


def knowing_request(answer: Any, instance: Instance, filter_name: str, where: str) -> FilteredText | FilteredTexts:
    """Return a filtered answer that knows its request; raise TaskError where it is neither text nor texts."""
    if not isinstance(answer, str | list):
        raise TaskError(f"{where}: the filter {filter_name} gives {answer!r}, neither a text nor a list of texts")
    known: FilteredText | FilteredTexts = (FilteredText if isinstance(answer, str) else FilteredTexts)(answer)
    known.instance, known.filter = instance, filter_name
    return known


def answers_of_texts(written: Sequence[Any], ensemble: Any, where: str) -> dict[int, list[Any]]:
    """Return, by doc id, what a filter makes of each text alone.

    Args:
        written: docs with their texts: each has ``doc``, ``doc_id`` and the texts in ``resps``.
        ensemble: the filter.
        where: file and task, for an error.

    Raises:
        TaskError: the filter takes no text alone.
    """
    alone = [
        SimpleNamespace(resps=[text], doc=instance.doc, filtered_resps={}, doc_id=instance.doc_id)
        for instance in written
        for text in instance.resps
    ]
    answers: dict[int, list[Any]] = {}
    if alone:
        try:
            ensemble.apply(alone)
        except AssertionError as error:  # take_first_k wants k samples
            raise TaskError(
                f"{where}: the filter {ensemble.name} can't make an answer of one sample alone ({error}); name another "
                "with metadata.calibration.filter"
            ) from error
    for sample in alone:
        answers.setdefault(sample.doc_id, []).append(sample.filtered_resps[ensemble.name])
    return answers


def log_probs_of(text: Any, which: str = "token_log_probs") -> tuple[float, ...] | None:
    """Return the log-probabilities of a generated text's tokens, or its thought's; None where there are none."""
    log_probs = getattr(text, which, None)
    return None if log_probs is None else tuple(log_probs.tolist())


def chain_before(final: FinalAnswer, text: Any, window: int) -> ChainConfidence | None:
    """Return how sure the model was along the thought: all that it wrote before the answer, or all where there is none.

    Args:
        final: what became of the text.
        text: as it was generated.
        window: tokens of a window; 0 where none are wanted.
    """
    mean_top_k = getattr(text, "mean_top_k", None)
    if not window or mean_top_k is None:
        return None
    n_taken_away = 0 if text.thought_log_probs is None else len(text.thought_log_probs)
    end = len(mean_top_k) if final.tokens is None else n_taken_away + final.tokens[0]
    return ChainConfidence.of(mean_top_k[:end], k=text.top_k, window=window)
