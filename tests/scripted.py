"""A backend that answers by a script, with token probabilities of its own making."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import LM

from lm_eval_calibration.backends import GeneratedText, TokenScores


class Scripted(LM):
    """Answers each prompt by a function of the prompt and of how often it was asked; every character is a token."""

    def __init__(
        self, script: Callable[[str, int], str], probability: Callable[[str], float] = lambda _: 0.5, **known: Any
    ) -> None:
        super().__init__()
        self.script, self.probability = script, probability
        self.known = known  # of every text, beside its tokens
        self.asked: dict[str, int] = {}
        self.settings: list[dict[str, Any]] = []

    def generated_tokens_v1(self, requests: Sequence[Any]) -> list[GeneratedText]:
        texts = []
        for request in requests:
            prompt, settings = request.args
            self.settings.append(settings)
            text = self.script(prompt, self.asked.get(prompt, 0))
            self.asked[prompt] = self.asked.get(prompt, 0) + 1
            log_probs = np.log([self.probability(character) for character in text])
            known = {"certificate": {"token_probabilities": "exact"}, "token_ends": np.arange(1, len(text) + 1)}
            known |= {name: value(text) if callable(value) else value for name, value in self.known.items()}
            texts.append(GeneratedText(text, token_log_probs=log_probs, **known))
        return texts

    def token_scores_v1(self, requests: Sequence[Any]) -> list[TokenScores]:
        scores = []
        for request in requests:
            probs = np.array([self.probability(character) for character in request.args[1]])
            large = tuple(np.array([p, 1 - p]) for p in probs)
            scores.append(
                TokenScores(
                    (float(np.log(probs).sum()), False), log_probs=np.log(probs), large_probs=large, vocab_size=2
                )
            )
        return scores

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [self.script(request.args[0], 0) for request in requests]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


class TextsOnly(LM):
    """Gives texts and log-likelihoods, and no probabilities of tokens."""

    def __init__(self, script: Callable[[str, int], str]) -> None:
        super().__init__()
        self.script = script

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [self.script(request.args[0], 0) for request in requests]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


class FixedLM(LM):
    """Log-likelihoods given by a function of (context, continuation); no distributions."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        return [(self.function(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError


def by_length(context: str, continuation: str) -> float:
    """A deterministic, unequal log-likelihood for every pair."""
    return -1.0 - (sum(map(ord, context + continuation)) % 97) / 20
