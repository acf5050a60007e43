"""One place a change: what a contributor adds is defined in this file alone, and works wherever it is chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from lm_eval.api.model import LM
from tiny import make_config, make_rows, run_tasks

from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, SCORING_REQUEST_TYPE, register
from lm_eval_calibration.backends.answer_types import GeneratedText, TokenScores
from lm_eval_calibration.tasks import CalibratedTask

# --- A backend: its class (the harness's, or somebody's own) and the functions that answer for it.


P = 0.75


class Dice(LM):
    """Every character is a token of probability P, beside one other; it writes "= 1"."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(len(r.args[1]) * np.log(P), False) for r in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return ["= 1" for _ in requests]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


class LoadedDice(Dice):
    """Scores in a way of its own."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(-1.0, False) for _ in requests]


@register(f"{__name__}.Dice", request_type=SCORING_REQUEST_TYPE, stock_methods=["loglikelihood"])
def score(lm: Any, requests: Sequence[Any], deliver: Any) -> None:
    for i, (pair, request) in enumerate(zip(lm.loglikelihood(requests), requests, strict=True)):
        n_tokens = len(request.args[1])
        large = (np.array([P, 1 - P]),) * n_tokens
        deliver(i, TokenScores(pair, log_probs=np.log(np.full(n_tokens, P)), large_probs=large, vocab_size=2))


@register(f"{__name__}.Dice", request_type=GENERATION_REQUEST_TYPE)
def generate(lm: Any, requests: Sequence[Any], deliver: Any) -> None:
    for i, text in enumerate(lm.generate_until(requests)):
        certificate = {"token_probabilities": "exact"}
        deliver(i, GeneratedText(text, token_log_probs=np.log(np.full(len(text), P)), certificate=certificate))


SUMS = {
    "doc_to_choice": None,
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "= {{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match"}],
}


def test_a_backend_in_one_file_gives_distributions_and_confidence(harness_log: pytest.LogCaptureFixture) -> None:
    tasks = [
        CalibratedTask(make_config(make_rows(6))),
        CalibratedTask(make_config(make_rows(6), task="sums_calibration", **SUMS)),
    ]
    results = run_tasks(Dice(), tasks)["results"]
    assert results["letters_calibration"]["full_ece,none"] == pytest.approx(2 * (1 - P))
    assert results["sums_calibration"]["exact_match,none"] == results["sums_calibration"]["acc,none"]
    accuracy = results["sums_calibration"]["acc,none"]
    assert results["sums_calibration"]["ece,none"] == pytest.approx(abs(accuracy - P))  # the mean over its tokens
    assert "Dice gives no" not in harness_log.text


def test_a_subclass_that_changes_what_a_backend_relies_on_is_left_to_the_fallback(
    harness_log: pytest.LogCaptureFixture,
) -> None:
    found = run_tasks(LoadedDice(), [CalibratedTask(make_config(make_rows(4)))])["results"]["letters_calibration"]
    assert "full_ece,none" not in found
    assert "LoadedDice gives no token distributions (it has a loglikelihood of its own)" in harness_log.text
