"""What a backend returns for one prompt that it goes on from."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class GeneratedText(str):
    """The text of one generation, as a stock run returns it, plus the probabilities of its tokens.

    A text, because the harness's filters and metrics take texts; the rest are attributes. Picklable.

    Attributes:
        token_log_probs: [n_tokens] natural-log probabilities of the emitted tokens that the text consists of, by the
            model itself (temperature 1, before any processor or warper), or None where the backend gives none. A token
            counts if some of its characters are in the text; the end token and the tokens of a stop string have none.
            A server's are what it gives: ``token_probabilities`` in the certificate says so.
        certificate: how the numbers were obtained (backend, dtype, whether the tokens were sampled, versions).
        asked: answers to the requests that the text led to, each None where the backend can't answer such.
    """

    token_log_probs: NDArray[np.float64] | None
    certificate: Mapping[str, Any]
    asked: tuple[Any, ...] = ()  # also of texts that an older cache holds

    def __new__(
        cls,
        text: str,
        *,
        token_log_probs: NDArray[np.float64] | None = None,
        certificate: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make the text and hang the attributes on it."""
        self = super().__new__(cls, text)
        self.token_log_probs = token_log_probs
        self.certificate = certificate or {}
        return self

    def with_asked(self, answers: Iterable[Any]) -> "GeneratedText":
        """Return a copy that has these answers (the original may sit in a cache)."""
        copy = GeneratedText(str(self), token_log_probs=self.token_log_probs, certificate=self.certificate)
        copy.asked = tuple(answers)
        return copy

    @property
    def has_probabilities(self) -> bool:
        """Whether the backend gives token probabilities (of this text or, where that failed, of others)."""
        return bool(self.certificate.get("token_probabilities", "none") != "none")
