"""A question that follows an answer: in the same text, or as the next turn of a chat."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval_calibration.backends.thoughts import after_thought, open_thought
from lm_eval_calibration.errors import TaskError

ONE_LINE = {"until": ["\n"], "max_gen_toks": 32, "do_sample": False, "temperature": 0.0}
"""How a short reply is generated: one line, greedily."""

AFTER_A_THOUGHT = {**ONE_LINE, "until": [], "max_gen_toks": 1024}
"""How it is where the model thinks first: a thought has many lines."""

_ANSWER = "ANSWER-OF-THE-MODEL"
"""Stands for an answer where a chat template shows what it puts after one."""


class FollowUp:
    """Makes the prompt that asks a question about an answer.

    With a chat template the answer is the assistant's turn, and the question the user's next one. The prompt
    before stays as the model read it when it answered, to the byte (and need not be computed again): only what the
    template puts after an answer comes behind it. A thought that the template begins is closed before the answer, which
    the harness hands on without its thought.

    Args:
        question: text that follows an answer.
        chat_template: of the run, which makes a prompt of messages; None where prompts are plain text.
        where: task, for an error.
        at_once: whether what follows the question is no reply of a model that thinks first, but scored at once: a
            thought that the template begins after the question is then closed, too.

    Raises:
        TaskError: the template shows no answer that stands before a question.
    """

    def __init__(
        self, question: str, chat_template: Callable[..., Any] | None, where: str, *, at_once: bool = False
    ) -> None:
        self.question = question if chat_template is None else question.strip()
        self._after = question
        if chat_template is None:
            return
        try:
            chat = chat_template([{"role": "user", "content": "Question"}, *self._turns(_ANSWER)])
        except Exception as error:  # a template is a program
            raise TaskError(f"{where}: the chat template takes no question after an answer: {error!r}") from error
        if isinstance(chat, str):  # else messages stay messages
            _, shown, self._after = chat.rpartition(_ANSWER)
            if not shown:
                raise TaskError(f"{where}: the chat template leaves out the answer before a question")
            if at_once:
                self._after += _closing(self._after)

    def prompt(self, context: Any, answer: str) -> Any:
        """Return the prompt, of the context's kind: text, or messages as a chat server takes them.

        Args:
            context: the prompt that was answered.
            answer: as it continues the prompt.
        """
        if isinstance(context, str):
            return f"{context}{_closing(context)}{answer}{self._after}"
        if isinstance(context, list):
            return [*context, *self._turns(answer)]
        messages = [*json.loads(context.prompt), *self._turns(answer)]  # the harness's JsonChatStr
        return type(context)(json.dumps(messages, ensure_ascii=False))

    def _turns(self, answer: str) -> Sequence[Mapping[str, str]]:
        return [{"role": "assistant", "content": str(answer)}, {"role": "user", "content": self.question}]


def _closing(prompt: str) -> str:
    """Return what closes the thought that a prompt ends by beginning, as chat templates write it; "" for no thought."""
    end = open_thought(prompt)
    return f"\n{end}\n\n" if end else ""


def last_words(reply: str) -> str:
    """Return the line that a reply of a model that thinks first has after its thought; "" if the thought never ends."""
    lines = (after_thought(reply) or "").strip().splitlines()
    return lines[0] if lines else ""
