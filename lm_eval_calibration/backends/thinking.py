"""Models that think before they answer: which of them do, and prompts that tell them not to."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lm_eval.api.model import CachingLM

from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.thoughts import open_thought


def reason_for_thinking(lm: Any, chat_template: Callable[..., Any] | None) -> str:
    """Return why a model thinks before it answers the prompts of a run, in words that follow its name; "" if not.

    A model may think though nothing says so before it writes. Of a chat server that is seen in its reply to one small
    request.

    Args:
        lm: the backend; None outside a run.
        chat_template: makes a prompt of messages; None where prompts are plain text.
    """
    lm = _unwrapped(lm)
    if getattr(lm, "enable_thinking", None) and getattr(lm, "think_end_token", None) is not None:
        return "thinks before it answers (enable_thinking)"
    if chat_template is None:
        return ""
    prompt = chat_template([{"role": "user", "content": "Question"}])
    if isinstance(prompt, str):
        return "thinks before it answers (its chat template begins a thought)" if open_thought(prompt) else ""
    return _reason_of_server(lm)


@contextmanager
def without_thinking(lm: Any) -> Iterator[None]:
    """Let the chat template be told, within the context, that the model is not to think.

    Templates that know the setting then close the thought before it begins; others don't look at it.
    """
    lm = _unwrapped(lm)
    if not getattr(lm, "enable_thinking", None):
        yield
        return
    settings: dict[str, Any] = {"enable_thinking": False}
    if isinstance(getattr(lm, "chat_template_args", None), Mapping):
        settings["chat_template_args"] = {**lm.chat_template_args, "enable_thinking": False}
    with replaced(lm, **settings):
        yield


def _unwrapped(lm: Any) -> Any:
    return lm.lm if isinstance(lm, CachingLM) else lm


def _reason_of_server(lm: Any) -> str:
    if not any(f"{c.__module__}.{c.__name__}" == _CHAT_SERVER for c in type(lm).__mro__):
        return ""
    known: str | None = getattr(lm, _SHOWN, None)
    if known is None:
        from lm_eval_calibration.backends.api.reasoning import reason_for_thinking as reason_in_reply

        known = reason_in_reply(lm)
        if known is None:  # inconclusive
            return ""
        setattr(lm, _SHOWN, known)
    return known


_SHOWN = "_calibration_reason_for_thinking"
"""Attribute of a chat server's backend: what a small request showed."""

_CHAT_SERVER = "lm_eval.models.openai_completions.LocalChatCompletion"
