"""Requests whose arguments depend on answers to other requests of the same call: a query about a doc's answer.

Such a request waits. Its attribute ``waits_for`` says for which requests, and how their answers become its arguments;
until then it has a placeholder's. The requests that it waits for have it in their ``followed_by``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm_eval.api.model import LM, CachingLM


class WaitsFor(NamedTuple):
    """What a request waits for."""

    requests: Sequence[Any]
    arguments: Callable[[Sequence[Any]], tuple[Any, ...]]
    """Takes the answers to these; returns the arguments of the request that waits."""


def let_wait(request: Any, waits_for: WaitsFor) -> None:
    """Let a request wait for others."""
    request.waits_for = waits_for
    for other in waits_for.requests:
        other.followed_by = (*getattr(other, "followed_by", ()), request)


def can_wait(lm: Any, request_type: str) -> bool:
    """Whether requests of a type may wait: a backend that has a method of its own for them knows nothing of it.

    Outside a run (``lm`` is None) nobody answers them.
    """
    backend = lm.lm if isinstance(lm, CachingLM) else lm
    return backend is not None and getattr(type(backend), request_type, None) is getattr(LM, request_type, None)


class Queue:
    """The requests of a call in the order in which they can be answered.

    Args:
        requests: of a call, some of them more than once, perhaps.
    """

    def __init__(self, requests: Sequence[Any]) -> None:
        self._requests = requests
        self._places: dict[int, list[int]] = {}  # of each request that waits, by its identity
        self._missing: dict[int, set[int]] = {}  # what it waits for still, by identity
        self._answers: dict[int, Any] = {}
        for i, request in enumerate(requests):
            if (waits_for := getattr(request, "waits_for", None)) is not None:
                self._places.setdefault(id(request), []).append(i)
                self._missing[id(request)] = set(map(id, waits_for.requests))
        self.waits = bool(self._places)

    def first(self) -> list[int]:
        """Return the requests that don't wait, by number."""
        return [i for i, request in enumerate(self._requests) if id(request) not in self._missing]

    def ready(self, number: int, answer: Any) -> list[int]:
        """Take a request's answer; return the requests that waited for it last, by number, their arguments filled in.

        They wait no more.
        """
        answered = self._requests[number]
        if id(answered) in self._answers or not self.waits:
            return []
        self._answers[id(answered)] = answer
        found: list[int] = []
        for request in getattr(answered, "followed_by", ()):
            missing = self._missing.get(id(request))
            if missing is None:
                continue
            missing.discard(id(answered))
            if not missing:
                wanted = request.waits_for
                request.arguments = wanted.arguments([self._answers[id(other)] for other in wanted.requests])
                del request.waits_for
                found += self._places[id(request)]
        return found
