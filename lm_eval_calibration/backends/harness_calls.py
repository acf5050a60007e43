"""The harness's own methods, some others in their place: they batch, retry, order and show progress as in a stock run.

Each patch lasts for one call and is on the backend's instance, so its class and other backends keep theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

from lm_eval_calibration.backends.answer_types import TokenScores
from lm_eval_calibration.backends.cache import cached
from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.registry import Deliver


@contextmanager
def replaced(lm: Any, **attributes: Any) -> Iterator[None]:
    """Let attributes of the object take precedence over its class's (or its own) within the context."""
    own = vars(lm)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


def generate_until(lm: Any, requests: Sequence[Any], deliver: Deliver, **methods: Any) -> list[Any]:
    """Answer generation requests by the backend's ``generate_until``, ``methods`` of it replaced; return the texts.

    Each is delivered as soon as the harness has it: when it stores it for its cache.
    """
    kinds: dict[Any, Any] = {}

    def numbered(number: int, context: Any) -> Any:
        """Return the prompt with its request's number, which survives the harness's sorting and batching."""
        kind: Any = type(context)  # text, or the harness's chat, which is a tuple
        if kind not in kinds:
            kinds[kind] = type(f"Numbered{kind.__name__}", (kind,), {})
        prompt = kinds[kind](*(context if isinstance(context, tuple) else (context,)))
        prompt.number = number
        return prompt

    prompts = [SimpleNamespace(args=(numbered(i, r.args[0]), *r.args[1:])) for i, r in enumerate(requests)]
    hook = SimpleNamespace(add_partial=lambda _, arguments, text: deliver(arguments[0].number, text))
    with replaced(lm, cache_hook=hook, **methods):
        return list(lm.generate_until(prompts))


def warn_of_unmatched(lm: Any, n_unmatched: int, n_requests: int) -> None:
    """Warn of answers that do not consist of their tokens in order."""
    if n_unmatched:
        logger.warning(
            "%s: %d of %d answers have no token probabilities (their texts are not made of the tokens in their order).",
            type(lm).__name__,
            n_unmatched,
            n_requests,
        )


def checked_model_call(lm: Any, read: Callable[[Any, Sequence[Any]], Any]) -> Callable[..., Any]:
    """Return a server backend's ``model_call`` that reads each answer too, so that a faulty one is requested again.

    The harness retries calls. Where it makes several at a time it reads an answer within the call; where it makes one
    after the other only afterwards, when a fault ends the run. ``read`` is given the answer and the prompts, and raises
    ValueError where the answer can't be read.
    """

    def model_call(messages: Sequence[Any], **options: Any) -> Any:
        outputs = type(lm).model_call(lm, messages, **options)
        read(outputs, messages)
        return outputs

    return model_call


def loglikelihood(
    lm: Any, requests: Sequence[Any], deliver: Deliver, giving_scores: Callable[[Any], AbstractContextManager[Any]]
) -> None:
    """Answer scoring requests by the backend's ``loglikelihood``, in a context in which it gives scores, not pairs.

    Scores that ``--use_cache`` holds from a run that died are not computed again: the harness stores answers as they
    come. (A stock run's pair has no distributions and is no answer.)
    """
    known = cached(lm, "loglikelihood", [request.args for request in requests])
    unknown = []
    for i, answer in enumerate(known):
        if isinstance(answer, TokenScores):
            deliver(i, answer)
        else:
            unknown.append(i)
    if unknown:
        # The harness refuses models that think; tasks have seen to it that these prompts leave no thought open.
        with giving_scores(lm), replaced(lm, enable_thinking=False):
            answers = lm.loglikelihood([requests[i] for i in unknown])
        for i, scores in zip(unknown, answers, strict=True):
            deliver(i, scores)
