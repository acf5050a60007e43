"""The questions by which a model judges its own answer: P(true) is the probability of its saying that it is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A question about a proposed answer, and the two verdicts that may follow.

    Attributes:
        name: of the wording, as options and records give it.
        question: text that comes after the answer; the model goes on from its end.
        continuations: what it may say, each with the blank before it. In a chat (where the question is a turn of its
            own) both go without what surrounds them: ``question.strip()``, ``continuation.strip()``.
        true: index of the continuation that calls the answer right.
    """

    name: str
    question: str
    continuations: tuple[str, str]
    true: int

    def prompt(self, context: str, answer: str) -> str:
        """Return the text from which the continuations are scored.

        Args:
            context: the prompt that was answered, few-shot examples included.
            answer: as it continues the prompt, the delimiter before it included (`` B``).
        """
        return f"{context}{answer}{self.question}"

    def p_true(self, log_likelihoods: Sequence[float], *, nested: bool = False) -> float:
        """Return the probability that the answer is called right, given that it is called right or wrong (0..1).

        Two continuations of which neither begins with the other's tokens are two events, and P(true) is the softmax of
        their log-likelihoods: p_t / (p_t + p_f). Where `` ii`` is `` i`` and another token (``nested``), saying `` ii``
        is a case of having said `` i``: its probability could never exceed one half of the sum. There `` i`` alone is
        what is left, p_f - p_t, so that P(true) = p_t / p_f, the probability of the second token after the first.

        Args:
            log_likelihoods: of the continuations, in their order; in nats, summed over tokens.
            nested: whether the tokens of the false continuation begin the true one's.

        Returns:
            The probability; ``nan`` where both have none.
        """
        true, false = log_likelihoods[self.true], log_likelihoods[1 - self.true]
        if math.isnan(true) or math.isnan(false) or max(true, false) == -math.inf:
            return math.nan
        if nested:
            return math.exp(min(true - false, 0.0))  # a rounding error above 0 would be a probability above 1
        return 1 / (1 + math.exp(false - true)) if false - true < 700 else 0.0  # exp overflows at 710


KAPOOR = Query(
    "kapoor",
    "\n\nIs the proposed answer correct?\nChoices:\n(i): no\n(ii): yes\nAnswer:",
    (" i", " ii"),
    true=1,
)
"""The query of Kapoor et al. 2024, arXiv:2406.08391 (wording as in the authors' public code).

Their code compares the logits of the single tokens that ``i`` and ``ii`` end in and refuses tokenizers that lack one.
Here the texts `` i`` and `` ii`` are scored as the harness scores any continuation. With a token for each (SmolLM2's
``Ġi`` and ``Ġii``) that is the same number; a tokenizer that spells `` ii`` as `` i`` and ``i`` is what
:meth:`Query.p_true` has ``nested`` for.
"""

KADAVATH = Query(
    "kadavath",
    "\nIs the proposed answer:\n (A) True\n (B) False\nThe proposed answer is:",
    (" (A", " (B"),
    true=0,
)
"""P(True) of Kadavath et al. 2022, arXiv:2207.05221, zero-shot, after the task's own prompt and the answer.

The continuations end before the bracket: they differ in the letter alone, and whatever a tokenizer makes of brackets is
in both.
"""

QUERIES = {query.name: query for query in (KAPOOR, KADAVATH)}
"""Every wording, by name; the first is the default."""
