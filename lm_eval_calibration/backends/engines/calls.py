"""What vLLM and SGLang have in common: the harness's own calls, with more log-probabilities requested and read.

The harness requests one log-probability a position from vLLM and two from SGLang. Here the same calls request the most
probable tokens of each position of the prompt, and the log-probability of each token that is written. Batches, texts,
tensor and data parallelism stay the harness's.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lm_eval_calibration.backends import harness_calls
from lm_eval_calibration.backends.answer_types import TOP_K, Floats, TokenScores
from lm_eval_calibration.backends.certificate import certificate
from lm_eval_calibration.backends.registry import Deliver
from lm_eval_calibration.backends.top_k import Position, scores_of
from lm_eval_calibration.backends.written import Vocabulary, written_text

SCORING_METHODS = ("_loglikelihood_tokens", "_model_generate", "_parse_logprobs")
GENERATION_METHODS = ("generate_until", "_model_generate")
"""Stock methods that the calls rely on."""


class Written(NamedTuple):
    """The tokens that an engine wrote."""

    ids: list[int]
    log_probs: Floats
    mean_top_k: Floats | None = None  # as `GeneratedText` has it
    top_k: int = TOP_K  # tokens that this is the mean of


def engine_certificate(lm: Any, package: str, **fields: Any) -> dict[str, Any]:
    """Return how the engine's numbers are obtained."""
    dtype = str((getattr(lm, "model_args", None) or {}).get("dtype", ""))
    return certificate(lm, package, dtype=dtype, **fields)


def score(
    lm: Any,
    requests: Sequence[Any],
    deliver: Deliver,
    *,
    package: str,
    k: int,
    vocab_size: int,
    methods: Mapping[str, Callable[..., Any]],
    positions: Callable[[Sequence[int], Any, int], list[Position]],
) -> None:
    """Score every request's continuation by the k most probable tokens of each position.

    ``methods`` replace the backend's, so that k tokens are requested; ``positions`` reads an output, given the tokens
    of context and continuation, the output and the position where the continuation begins.
    """
    about = engine_certificate(lm, package, distributions="top_k", k=k)

    def parse(tokens: Sequence[int], outputs: Any, ctxlen: int) -> TokenScores:
        continuation = positions(tokens, outputs, ctxlen)
        return scores_of(continuation, k, are_ids=True, vocab_size=vocab_size, certificate=about)

    giving_scores = partial(harness_calls.replaced, **methods, _parse_logprobs=parse)
    harness_calls.loglikelihood(lm, requests, deliver, giving_scores)


class _Row(NamedTuple):
    """One answer: its tokens, and how they were chosen and spelt."""

    written: Written
    is_sampled: bool
    skips_special: bool

    def vocabulary(self, lm: Any) -> Vocabulary:
        """Return how the answer's token ids are read."""
        decode = partial(lm.tokenizer.decode, skip_special_tokens=self.skips_special)
        return Vocabulary(decode, lm.tokenizer.all_special_ids if self.skips_special else (), lm.think_end_token)


def generate(
    lm: Any,
    requests: Sequence[Any],
    deliver: Deliver,
    *,
    package: str,
    options_for: Callable[[Any], dict[str, Any]],
    read: Callable[[Any], Written],
    gives_sampled: bool,
) -> None:
    """Continue every request's context.

    ``options_for`` is given a batch's sampling parameters and requests log-probabilities, in these or by the options of
    the call that it returns; ``read`` reads one output; ``gives_sampled`` says whether log-probabilities of sampled
    tokens are the model's own, too.
    """
    rows: deque[_Row] = deque()
    about = engine_certificate(lm, package, token_probabilities="exact: the model's own at temperature 1")
    n_unmatched = 0

    def model_generate(**options: Any) -> Any:
        all_params = options["sampling_params"]
        outputs = type(lm)._model_generate(lm, **options, **options_for(all_params))
        for params, output in zip(all_params, outputs, strict=True):
            get = params.get if isinstance(params, dict) else partial(getattr, params)
            rows.append(_Row(read(output), get("temperature", 1.0) > 0, get("skip_special_tokens", True)))
        return outputs

    def deliver_text(number: int, text: str) -> None:
        nonlocal n_unmatched
        row = rows.popleft()  # the harness stores texts in the order of the batch
        is_known = gives_sampled or not row.is_sampled
        known = {} if is_known else {"token_probabilities": "none"}
        found = written_text(
            text,
            requests[number].args[0],
            row.written.ids,
            row.written.log_probs if is_known else None,
            row.vocabulary(lm),
            certificate={**about, **known, "sampled": row.is_sampled},
            mean_top_k=row.written.mean_top_k,
            top_k=row.written.top_k,
        )
        n_unmatched += found.finish_reason is None
        deliver(number, found)

    harness_calls.generate_until(lm, requests, deliver_text, _model_generate=model_generate)
    harness_calls.warn_of_unmatched(lm, n_unmatched, len(requests))
