"""Backends that answer by functions of the texts alone, so that no batch and no processor changes a number."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import LM

try:
    from lm_eval_calibration.backends import GeneratedText, TokenScores
except ImportError:
    from lm_eval_calibration.scoring import GeneratedText, TokenScores


def share(text: str) -> float:
    """A probability from 0.06 to 0.94 that the text settles."""
    return 0.06 + 0.88 * (sum(i * ord(c) for i, c in enumerate(text[-60:], 1)) % 89) / 88


def writes(prompt: str, asked: int = 0) -> str:
    """Adds, right where the first number is even; of several samples every third is another; says how sure it is."""
    if "100%" in prompt[-300:]:
        return ["no idea", " 90%", "Probability: 30%", "62.5%"][len(prompt) % 4]
    if numbers := re.findall(r"\d+ \+ \d+", prompt):
        a, b = map(int, numbers[-1].split(" + "))
        return "" if a == 7 else f"= {a + b + a % 2 + (asked % 3 == 2)} or {a}"
    return "ABCDE?"[len(prompt) % 6] if "Add" not in prompt else "def f(a):\n  return a + 2\n"


class TextsOnly(LM):
    """Gives texts and log-likelihoods, and no probabilities of tokens."""

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [writes(_text(request.args[0])) for request in requests]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-9 * share("".join(map(_text, request.args))), False) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return [-len(request.args[0]) * share(request.args[0]) for request in requests]


class Exact(TextsOnly):
    """Every character is a token, of a vocabulary of three."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, int] = {}

    def _log_probs(self, prompt: str, text: str) -> Any:
        return np.log([share(prompt + text[: i + 1]) for i in range(len(text))])

    def generated_tokens_v1(self, requests: Sequence[Any]) -> list[GeneratedText]:
        texts = []
        for prompt in (_text(request.args[0]) for request in requests):
            text = writes(prompt, self.asked.get(prompt, 0))
            self.asked[prompt] = self.asked.get(prompt, 0) + 1
            about = {"backend": "Exact", "token_probabilities": "exact"}
            texts.append(GeneratedText(text, token_log_probs=self._log_probs(prompt, text), certificate=about))
        return texts

    def token_scores_v1(self, requests: Sequence[Any]) -> list[TokenScores]:
        scores = []
        for prompt, text in (request.args for request in requests):
            log_probs = self._log_probs(prompt, text)
            large = tuple(np.array([p, 0.7 * (1 - p), 0.3 * (1 - p)]) for p in np.exp(log_probs))
            pair = (float(log_probs.sum()), bool((np.exp(log_probs) > 0.5).all()))
            about = {"backend": "Exact", "distributions": "exact", "tokenizer": "characters"}
            scores.append(TokenScores(pair, log_probs=log_probs, large_probs=large, vocab_size=3, certificate=about))
        return scores


class Templated(TextsOnly):
    """A chat model that returns texts; chats are texts of JSON."""

    tokenizer_name = "chats"

    def chat_template(self, _: Any = False) -> str:
        return "a template"

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> str:
        return json.dumps(messages)


def _text(prompt: Any) -> str:
    return str(getattr(prompt, "prompt", prompt))
