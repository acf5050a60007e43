"""Hugging Face models: what they write and how probable they held each token of it, in the same run.

The harness's own ``generate_until`` runs (batches, padding, stop strings, thinking), so the text is the stock run's;
only its ``_model_generate`` is watched. A hook on the model sees each step's logits before any processor or warper.
Of them one step is held, until the next step shows the token that was chosen: memory is that of one step.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from numpy.typing import NDArray

from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.spans import span_of_ids
from lm_eval_calibration.backends.stock_calls import generate
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, GeneratedText], None]


def refusal(lm: HFLM) -> str | None:
    """Say whether the backend generates in a way of its own: that must not be ignored."""
    own = type(lm).generate_until is not HFLM.generate_until
    return "it has a generate_until of its own" if own else None


def answer(lm: HFLM, requests: Sequence[Any], keep: Keep) -> None:
    """Answer every request (see :func:`lm_eval_calibration.backends.generated_tokens`)."""
    rows: deque[_Row] = deque()
    unseen: set[str] = set()

    def take(number: int, text: str) -> None:
        """Take the text of the next row: the harness stores them in the order of the batch."""
        row = rows.popleft()
        sampled = bool(requests[number].args[1].get("do_sample", False))
        log_probs, certificate = None, {**row.certificate, "sampled": sampled}
        if row.log_probs is not None:
            found = span_of_ids(row.tokens, text, lm.tok_decode, lm.tokenizer.all_special_ids, lm.think_end_token)
            log_probs = None if found is None else row.log_probs[found]
            if found is None:
                unseen.add("its text is not made of the tokens in their order")
        keep(number, GeneratedText(text, token_log_probs=log_probs, certificate=certificate))

    def model_generate(context: torch.Tensor, **options: Any) -> torch.Tensor:
        with _Recorder.on(lm) as recorder:
            sequences: torch.Tensor = type(lm)._model_generate(lm, context=context, **options)
        emitted, log_probs = recorder.finish(sequences, context)
        if log_probs is None:
            unseen.add("the tokens that it chose were not seen step by step, as with beams")
        certificate = {
            "backend": type(lm).__name__,
            "token_probabilities": "none" if log_probs is None else "exact: the model's own at temperature 1",
            "dtype": recorder.dtype,
            **tokenizer_fields(lm),
            "versions": versions("lm-eval", "transformers", "torch"),
        }
        for i, tokens in enumerate(emitted.tolist()):
            rows.append(_Row(tokens, None if log_probs is None else log_probs[:, i], certificate))
        return sequences

    generate(lm, requests, take, _model_generate=model_generate)
    for reason in sorted(unseen):
        logger.warning("%s: some answers have no token probabilities (%s).", type(lm).__name__, reason)


class _Row(NamedTuple):
    """One line of a batch: the emitted tokens, their log-probabilities, and how these were obtained."""

    tokens: list[int]
    log_probs: NDArray[np.float64] | None
    certificate: dict[str, Any]


class _Recorder:
    """Watches one call of ``generate``: the log-probability of each token that it emits."""

    def __init__(self, tokens_name: str) -> None:
        self.tokens_name = tokens_name
        self.dtype = ""
        self._held: torch.Tensor | None = None  # [batch, vocab_size] logits of the step whose token is not known yet
        self._tokens: list[torch.Tensor] = []  # of each step, [batch]
        self._log_probs: list[torch.Tensor] = []  # of each step, [batch]

    @classmethod
    @contextmanager
    def on(cls, lm: HFLM) -> Iterator[Self]:
        """Watch the model while the context lasts."""
        recorder = cls("input_ids" if lm.backend == "causal" else "decoder_input_ids")
        module = lm.model.get_base_model() if hasattr(lm.model, "get_base_model") else lm.model  # adapters
        handle = module.register_forward_hook(recorder._step, with_kwargs=True)
        try:
            yield recorder
        finally:
            handle.remove()

    def _step(self, _: Any, __: Any, inputs: dict[str, Any], output: Any) -> None:
        tokens = inputs.get(self.tokens_name)
        if self._held is not None and tokens is not None:
            self._choose(tokens[:, -1])
        logits = output.logits[:, -1]
        self.dtype = str(logits.dtype).removeprefix("torch.")
        self._held = logits.detach().clone()  # else the prompt's logits would live on with it

    def _choose(self, tokens: torch.Tensor) -> None:
        """Note the log-probability of the tokens that were chosen by the held logits."""
        if self._held is None or len(tokens) != len(self._held):
            return
        z = self._held.float()
        total = torch.float32 if z.device.type == "mps" else torch.float64  # MPS has no float64
        top = z.amax(-1, keepdim=True)
        log_sum = (z - top).exp_().sum(-1, dtype=total).log()
        chosen = (z.gather(-1, tokens[:, None].to(z.device)) - top)[:, 0].to(total) - log_sum
        self._tokens.append(tokens)
        self._log_probs.append(chosen)

    def finish(self, sequences: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, NDArray[np.float64] | None]:
        """Return the emitted tokens [batch, steps] and their log-probabilities [steps, batch].

        None where not every emitted token was seen being chosen, in its step: with beams, say.
        """
        start = context.shape[1] if self.tokens_name == "input_ids" else 1
        emitted = sequences[:, start:]
        if not emitted.shape[1]:
            return emitted, np.zeros((0, len(emitted)))
        if self._held is not None:
            self._choose(emitted[:, -1])
        if len(self._tokens) != emitted.shape[1]:
            return emitted, None
        if not torch.equal(torch.stack(self._tokens, dim=1).to(emitted.device), emitted):
            return emitted, None
        log_probs = torch.stack(self._log_probs).cpu().numpy().astype(np.float64)
        return emitted, np.minimum(log_probs, 0.0)  # a rounding error above 0 would be a probability above 1
