"""The harness's own calls, borrowed: they batch, retry, order and show progress while the backend asks for more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.backends.token_scores import TokenScores


@contextmanager
def shadowed(lm: Any, **attributes: Any) -> Iterator[None]:
    """Let attributes of the object stand before its class's (or its own) as long as the context lasts."""
    own = vars(lm)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


def generate(lm: Any, requests: Sequence[Any], take: Callable[[int, Any], None], **methods: Any) -> list[Any]:
    """Answer generation requests by the backend's ``generate_until``, some of its methods replaced; return the answers.

    Args:
        lm: the backend.
        requests: all of one run.
        take: is told each request's number and answer as soon as the harness has it: it stores each for its cache.
        **methods: of the backend, in place of its own as long as it generates.
    """
    numbered = [SimpleNamespace(args=(_numbered(i, r.args[0]), *r.args[1:])) for i, r in enumerate(requests)]
    hook = SimpleNamespace(add_partial=lambda _, request, answer: take(request[0].number, answer))
    with shadowed(lm, cache_hook=hook, **methods):
        return list(lm.generate_until(numbered))


def _numbered(number: int, context: Any) -> Any:
    """Return the prompt as one that knows which request it is of, through the harness's sorting and batching."""
    kind: Any = type(context)
    numbered = _numbered_kind(kind)(*(context if isinstance(context, tuple) else (context,)))
    numbered.number = number
    return numbered


@cache
def _numbered_kind(kind: Any) -> type[Any]:
    return type(f"Numbered{kind.__name__}", (kind,), {})  # texts, and the harness's chats, which are tuples


def read_at_once(lm: Any, read: Callable[[Any, Sequence[Any]], Any]) -> Callable[..., Any]:
    """Return a server backend's ``model_call`` that reads each answer too, so that a faulty one is asked for again.

    The harness retries calls. Where it asks several at a time it reads an answer within the call; where it asks one
    after the other only afterwards, when a fault ends the run.

    Args:
        lm: the backend.
        read: is given the answer and the prompts; raises ValueError where it can't be read.
    """

    def model_call(messages: Sequence[Any], **options: Any) -> Any:
        outputs = type(lm).model_call(lm, messages, **options)
        read(outputs, messages)
        return outputs

    return model_call


def score(
    lm: Any,
    requests: Sequence[Any],
    keep: Callable[[int, TokenScores], None],
    asking_for_more: Callable[[Any], AbstractContextManager[Any]],
) -> None:
    """Answer token-score requests by the backend's ``loglikelihood``.

    What ``--use_cache`` holds of them from a run that died is not asked again: the harness keeps answers as they come.

    Args:
        lm: the backend.
        requests: all of one run.
        keep: is told each request's number and scores.
        asking_for_more: a context in which ``loglikelihood`` gives scores instead of pairs.
    """
    todo = []
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    for i, request in enumerate(requests):
        known = None if cache is None else cache.get(hash_args("loglikelihood", request.args))
        if isinstance(known, TokenScores):  # a stock run's pair has no distributions and is no answer
            keep(i, known)
        else:
            todo.append(i)
    if todo:
        with asking_for_more(lm):
            answers = lm.loglikelihood([requests[i] for i in todo])
        for i, scores in zip(todo, answers, strict=True):
            keep(i, scores)
