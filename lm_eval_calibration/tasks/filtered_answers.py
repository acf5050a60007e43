"""Answers as a filter makes them of generated texts, each with the request that it is to."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import TaskError

INVALID = "[invalid]"
"""What the harness's ``regex`` filter leaves where nothing matches."""


class FilterOfForms:
    """A filter of the harness that is shown the answer in each reply, not the reply.

    Args:
        ensemble: the harness's filter.
        answers_in: returns the texts of an answer that the filter may be shown: the first in which it finds something
            counts, and the first of all where it finds nothing.
    """

    def __init__(self, ensemble: Any, answers_in: Callable[[str], Sequence[str]]) -> None:
        self.name, self.filters = ensemble.name, ensemble.filters
        self._ensemble, self._answers_in = ensemble, answers_in

    def apply(self, instances: Sequence[Any]) -> None:
        """Set each instance's ``filtered_resps`` of this filter."""
        texts = [[list(self._answers_in(str(reply))) for reply in instance.resps] for instance in instances]
        for attempt in range(max(len(shown) for replies in texts for shown in replies)):
            shown = [
                SimpleNamespace(resps=[t[min(attempt, len(t) - 1)] for t in replies], doc=i.doc, filtered_resps={})
                for i, replies in zip(instances, texts, strict=True)
            ]
            self._ensemble.apply(shown)
            for instance, found in zip(instances, (s.filtered_resps[self.name] for s in shown), strict=True):
                if attempt == 0 or (not is_found(instance.filtered_resps[self.name]) and is_found(found)):
                    instance.filtered_resps[self.name] = found


def is_found(answer: Any) -> bool:
    """Whether a filter found an answer, one at least where it gives several."""
    texts = answer if isinstance(answer, list | tuple) else [answer]
    return any(is_found(text) if isinstance(text, list | tuple) else text not in ("", INVALID) for text in texts)


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
        raise TaskError(f"{where}: the filter {filter_name} gives {answer!r}, neither text nor texts")
    known: FilteredText | FilteredTexts = (FilteredText if isinstance(answer, str) else FilteredTexts)(answer)
    known.instance, known.filter = instance, filter_name
    return known


def answers_of_samples(written: Sequence[Instance], ensemble: Any, where: str) -> dict[int, list[Any]]:
    """Return, by doc id, what a filter makes of each sample alone of the docs that have several.

    Raises:
        TaskError: the filter takes no sample alone.
    """
    alone = [
        SimpleNamespace(resps=[text], doc=instance.doc, filtered_resps={}, doc_id=instance.doc_id)
        for instance in written
        if len(instance.resps) > 1
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


def token_log_probs(text: Any) -> tuple[float, ...] | None:
    """Return the log-probabilities of a generated text's tokens; None where the backend gave none."""
    log_probs = getattr(text, "token_log_probs", None)
    return None if log_probs is None else tuple(log_probs.tolist())
