"""SGLang in the harness's own process.

It gives 20 tokens a position. Log-probabilities of a text that is sampled are after the temperature of its request, so
such texts have none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_eval_calibration.backends import alternatives
from lm_eval_calibration.backends.engines import calls
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, SCORING_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.top_k import K, Position, checked_log_prob
from lm_eval_calibration.errors import UserError

SGLANG = "lm_eval.models.sglang_causallms.SGLangLM"


@register(SGLANG, request_type=SCORING_REQUEST_TYPE, stock_methods=calls.SCORING_METHODS)
def score(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every request's continuation."""

    def model_generate(requests: Any, **options: Any) -> Any:
        return type(lm)._model_generate(lm, requests=requests, **{**options, "top_logprobs_num": K})

    how: dict[str, Any] = {"package": "sglang", "k": K, "vocab_size": len(lm.tokenizer)}
    calls.score(lm, requests, deliver, **how, methods={"_model_generate": model_generate}, positions=positions)


def positions(tokens: Sequence[int], output: Any, start: int) -> list[Position]:
    """Read the prompt's tokens from ``start`` on: lists of (log-probability, token id, text).

    Raises:
        ValueError: other tokens than the prompt's, or something that is no log-probability.
    """
    about = output["meta_info"]
    own, tops = about["input_token_logprobs"], about["input_top_logprobs"]
    if not len(own) == len(tops) == len(tokens):
        raise ValueError(f"SGLang gave {len(own)} and {len(tops)} positions of a prompt of {len(tokens)} tokens")
    found = []
    for i in range(start, len(tokens)):
        value, token = own[i][:2]
        if token != tokens[i]:
            raise ValueError(f"SGLang gave a log-probability of id {token} for the prompt's token {i} (id {tokens[i]})")
        top = {entry[1]: checked_log_prob(entry[0], f"token {i}, id {entry[1]}") for entry in tops[i] or ()}
        found.append(Position(token, checked_log_prob(value, f"token {i}"), top))
    return found


@register(SGLANG, request_type=GENERATION_REQUEST_TYPE, stock_methods=calls.GENERATION_METHODS)
def generate(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Continue every request's context; raise UserError where some want numbers along a chain of thought."""
    if alternatives.want_means(requests):
        raise UserError("SGLang's most probable tokens are not read: leave `chain` out, or take hf or vLLM")
    how: dict[str, Any] = {"package": "sglang", "read": written_tokens, "gives_sampled": False}
    calls.generate(lm, requests, deliver, **how, options_for=lambda _: {"return_logprob": True})


def written_tokens(output: Any) -> calls.Written:
    """Read the tokens that were written: lists of (log-probability, token id, text).

    Raises:
        ValueError: there are none, or something that is no log-probability.
    """
    given = output["meta_info"].get("output_token_logprobs")
    if given is None:
        raise ValueError("SGLang gave no log-probabilities of the tokens that it wrote")
    log_probs = [checked_log_prob(entry[0], f"token {i}, id {entry[1]}") for i, entry in enumerate(given)]
    return calls.Written([entry[1] for entry in given], np.array(log_probs, dtype=np.float64))
