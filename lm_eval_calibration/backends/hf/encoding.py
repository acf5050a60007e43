"""Texts tokenized many at a time and each once: on a fast device the host's tokenizing takes longer than the model.

The harness tokenizes each prompt with its continuation, and again each prompt, one text after the other: of a question
with four choices that is five different texts in eight calls. Fast tokenizers take many texts on many threads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval_calibration.backends.harness_calls import replaced

_AT_A_TIME = 1024
"""Texts: what is kept of them is small beside what the harness keeps of all."""


@contextmanager
def encoding_ahead(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Let the tokenizer's ``encode`` know the texts that the harness makes of (context, continuation) pairs.

    A text that comes otherwise is tokenized when it comes. So are all where the tokenizer's call on many texts fails,
    or gives other tokens than that on one.
    """
    encode = tokenizer.encode
    texts = list(dict.fromkeys(text for pair in pairs for text in ("".join(pair), pair[0].rstrip())))
    places = {text: place for place, text in enumerate(texts)}
    known: dict[str, list[int]] = {}
    with_options: dict[str, Any] | None = None
    works = True

    def known_or_encoded(text: str, *arguments: Any, **options: Any) -> list[int]:
        nonlocal known, with_options, works
        if arguments or text not in places or not works:
            return encode(text, *arguments, **options)  # type: ignore[no-any-return]
        if text not in known or options != with_options:
            ahead = texts[places[text] : places[text] + _AT_A_TIME]
            alone = encode(text, **options)
            try:
                found = tokenizer(ahead, **options)["input_ids"]
                works = len(found) == len(ahead) and list(found[0]) == list(alone)
            except Exception:  # tokenizers from elsewhere may raise anything
                works = False
            if not works:
                return alone  # type: ignore[no-any-return]
            known, with_options = dict(zip(ahead, found, strict=True)), options
        return list(known[text])

    with replaced(tokenizer, encode=known_or_encoded):
        yield
