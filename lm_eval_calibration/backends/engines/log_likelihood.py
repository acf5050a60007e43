"""vLLM and SGLang: the harness's own calls, with the most probable tokens of each position of the prompt.

The harness asks vLLM for one log-probability a position and SGLang for two. Here the same calls ask for 20 (vLLM, where
it was started with a larger ``max_logprobs``: up to 100), and what comes back is read in full. Batches, tensor and data
parallelism stay the harness's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval_calibration.backends.stock_calls import score, shadowed
from lm_eval_calibration.backends.token_scores import MAX_BINS, TokenScores
from lm_eval_calibration.backends.top_k import K, Position, checked_log_prob, scores_of
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields

Keep = Callable[[int, TokenScores], None]

_OURS_ONLY_IF_STOCK = ("_loglikelihood_tokens", "_model_generate", "_parse_logprobs")


def refusal(lm: Any) -> str | None:
    """Say which stock method of scoring the backend overrides, if any: what it overrides must not be ignored."""
    base = next(cls for cls in type(lm).__mro__ if cls.__name__ in ("VLLM", "SGLangLM"))
    changed = [name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(base, name)]
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: Any, requests: Sequence[Any], keep: Keep) -> None:
    """Score every request (see :func:`lm_eval_calibration.backends.token_scores`)."""
    score(lm, requests, keep, _asking_for_more)


def is_vllm(lm: Any) -> bool:
    """Whether the backend is vLLM; else it is SGLang."""
    return any(cls.__name__ == "VLLM" for cls in type(lm).__mro__)


def certificate_of(lm: Any) -> dict[str, Any]:
    """Return how the engine's numbers are obtained."""
    arguments = getattr(lm, "model_args", None) or {}
    return {
        "backend": type(lm).__name__,
        "dtype": str(arguments.get("dtype", "")),
        **tokenizer_fields(lm),
        "versions": versions("lm-eval", "vllm" if is_vllm(lm) else "sglang"),
    }


@contextmanager
def _asking_for_more(lm: Any) -> Iterator[None]:
    """Let the backend ask for k entries and answer with what comes of it, as long as the context lasts."""
    k = _k_of_vllm(lm) if is_vllm(lm) else K
    read = vllm_positions if is_vllm(lm) else sglang_positions
    vocab_size = _vocab_size(lm)
    certificate = certificate_of(lm) | {"distributions": "top_k", "k": k}

    def generate(requests: Any, **options: Any) -> Any:
        if not is_vllm(lm):
            return type(lm)._model_generate(lm, requests=requests, **{**options, "top_logprobs_num": k})
        from vllm import SamplingParams

        # `generate` lets the method take these parameters instead of its own, which differ in their number only.
        params = SamplingParams(temperature=0, prompt_logprobs=k, max_tokens=1, detokenize=False)
        return type(lm)._model_generate(lm, requests=requests, generate=True, sampling_params=params)

    def parse(tokens: Sequence[int], outputs: Any, ctxlen: int) -> TokenScores:
        continuation = read(tokens, outputs, ctxlen)
        return scores_of(continuation, k, are_ids=True, vocab_size=vocab_size, certificate=certificate)

    with shadowed(lm, _model_generate=generate, _parse_logprobs=parse):
        yield


def vllm_positions(tokens: Sequence[int], output: Any, start: int) -> list[Position]:
    """Read what vLLM gives of the prompt's tokens from ``start`` on: a mapping from token id to log-probability each.

    Raises:
        ValueError: it lacks the prompt's own token, or holds something that is no log-probability.
    """
    given = output.prompt_logprobs
    if given is None or len(given) != len(tokens):
        raise ValueError(f"vLLM gave {len(given or ())} positions of a prompt of {len(tokens)} tokens")
    found = []
    for i in range(start, len(tokens)):
        if not given[i] or tokens[i] not in given[i]:
            raise ValueError(f"vLLM gave no log-probability of the prompt's token {i} (id {tokens[i]})")
        top = {
            token: checked_log_prob(getattr(value, "logprob", value), f"token {i}, id {token}")
            for token, value in given[i].items()
        }
        found.append(Position(tokens[i], top[tokens[i]], top))
    return found


def sglang_positions(tokens: Sequence[int], output: Any, start: int) -> list[Position]:
    """Read what SGLang gives of the prompt's tokens from ``start`` on: lists of (log-probability, token id, text).

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


def _k_of_vllm(lm: Any) -> int:
    most = (getattr(lm, "model_args", None) or {}).get("max_logprobs", K)
    return MAX_BINS if int(most) < 0 else min(int(most), MAX_BINS)  # -1: as many as there are


def _vocab_size(lm: Any) -> int:
    """Return the entries of each distribution, padding rows included where the engine tells."""
    engine = getattr(getattr(lm, "model", None), "llm_engine", None)
    if engine is not None:
        return int(engine.model_config.get_vocab_size())
    return len(lm.tokenizer)
