"""From the tokens that a model wrote to the text that the harness made of them, with what is known of each token."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_calibration.backends.answer_types import TOP_K, Floats, GeneratedText
from lm_eval_calibration.backends.thoughts import THINK_END, is_open_thought
from lm_eval_calibration.backends.tokens import Decode, span_of_ids, token_ends


class Vocabulary(NamedTuple):
    """How a backend's token ids are read.

    Attributes:
        decode: ids to text.
        special: ids that have no text.
        think_end: the token, or the string, up to which the harness takes the text away; None where it takes nothing.
    """

    decode: Decode
    special: Collection[int]
    think_end: str | int | None


def written_text(
    text: str,
    prompt: Any,
    tokens: Sequence[int],
    log_probs: Floats | None,
    vocabulary: Vocabulary,
    *,
    certificate: Mapping[str, Any],
    mean_top_k: Floats | None = None,
    top_k: int = TOP_K,
) -> GeneratedText:
    """Return the text of one answer; without probabilities where it is not made of the tokens in their order.

    Args:
        text: what the harness made of the tokens.
        prompt: that was continued.
        tokens: emitted, those that end the text and padding included.
        log_probs: [n] natural-log probabilities of the tokens; None where they are not known.
        vocabulary: of the backend.
        certificate: how these were obtained.
        mean_top_k: [n] as :class:`GeneratedText` has it.
        top_k: as well.
    """
    decode, special, think_end = vocabulary
    span = span_of_ids(list(tokens), text, decode, special, think_end)
    if span is None:
        return GeneratedText(text, certificate=certificate)
    thought = decode(list(tokens[: span.start])) if span.start else ""
    is_cut = bool(text) and span.stop == len(tokens) and decode(list(tokens[span])).endswith(text)
    return GeneratedText(
        text,
        token_log_probs=log_probs[span] if log_probs is not None else None,
        token_ends=token_ends(tokens[span], text, decode),
        thought_log_probs=log_probs[: span.start] if log_probs is not None and span.start else None,
        thought=thought,
        thought_ends=token_ends(tokens[: span.start], thought, decode) if thought else None,
        mean_top_k=mean_top_k[: span.stop] if log_probs is not None and mean_top_k is not None else None,
        top_k=top_k,
        finish_reason="length" if is_cut else "stop",
        thought_is_open=not span.start and is_open_thought(prompt, text, _shown(think_end, decode)),
        certificate=certificate,
    )


def _shown(think_end: str | int | None, decode: Decode) -> str:
    return decode([think_end]) if isinstance(think_end, int) else think_end or THINK_END
