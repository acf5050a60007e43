"""Answers as a filter makes them of generated texts, each with the request that it is to."""

from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_calibration.errors import TaskError


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
