"""Hugging Face models: what they write and how probable they held each token of it, in the same run.

The harness's own ``generate_until`` runs (batches, padding, stop strings, thinking), so the text is the stock run's;
only its ``_model_generate`` is watched. A hook on the model sees each step's logits before any processor or warper.
Of them one step is held, until the next step shows the token that was chosen: memory is that of one step.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.answer_types import TOP_K, Floats
from lm_eval_calibration.backends.certificate import certificate, logger
from lm_eval_calibration.backends.harness_calls import generate_until
from lm_eval_calibration.backends.hf.distributions import dtype_of, float64_or_widest
from lm_eval_calibration.backends.hf.transfer import to_host
from lm_eval_calibration.backends.registry import GENERATION_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.backends.written import Vocabulary, written_text


class _Row(NamedTuple):
    """One line of a batch: the emitted tokens, what is known of their probabilities, and how that was obtained."""

    tokens: list[int]
    log_probs: Floats | None
    mean_top_k: Floats | None
    certificate: dict[str, Any]


@register("lm_eval.models.huggingface.HFLM", request_type=GENERATION_REQUEST_TYPE, stock_methods=("generate_until",))
def generate(lm: HFLM, requests: Sequence[Any], deliver: Deliver) -> None:
    """Continue every request's context."""
    rows: deque[_Row] = deque()
    failures: set[str] = set()
    about = certificate(lm, "transformers", "torch", token_probabilities="", dtype="")

    def model_generate(context: torch.Tensor, **options: Any) -> torch.Tensor:
        with _Recorder.on(lm, wants_top_k=wants_top_k) as recorder:
            sequences: torch.Tensor = type(lm)._model_generate(lm, context=context, **options)
        emitted, log_probs, mean_top_k = recorder.finish(sequences, context)
        if log_probs is None:
            failures.add("the tokens that it chose were not seen step by step, as with beams")
        known = "none" if log_probs is None else "exact: the model's own at temperature 1"
        of_batch = {**about, "token_probabilities": known, "dtype": recorder.dtype}
        for i, tokens in enumerate(emitted):
            of_row = [None if steps is None else steps[:, i] for steps in (log_probs, mean_top_k)]
            rows.append(_Row(tokens, of_row[0], of_row[1], of_batch))
        return sequences

    def deliver_text(number: int, text: str) -> None:
        row = rows.popleft()  # the harness stores texts in the order of the batch
        prompt, settings = requests[number].args[:2]
        of_text = {**row.certificate, "sampled": bool(settings.get("do_sample", False))}
        found = written_text(
            text, prompt, row.tokens, row.log_probs, vocabulary, certificate=of_text, mean_top_k=row.mean_top_k
        )
        if row.log_probs is not None and found.token_log_probs is None:
            failures.add("its text is not made of the tokens in their order")
        deliver(number, found)

    vocabulary = Vocabulary(lm.tok_decode, lm.tokenizer.all_special_ids, lm.think_end_token)
    wants_top_k = any(getattr(request, "wants_top_k", False) for request in requests)
    generate_until(lm, requests, deliver_text, _model_generate=model_generate)
    for reason in sorted(failures):
        logger.warning("%s: some answers have no token probabilities (%s).", type(lm).__name__, reason)


class _Recorder:
    """Watches one call of ``generate``: the log-probability of each token that it emits."""

    def __init__(self, tokens_name: str, wants_top_k: bool) -> None:
        self.tokens_name, self._wants_top_k = tokens_name, wants_top_k
        self.dtype = ""
        self._held: torch.Tensor | None = None  # [batch, vocab_size] logits of the step whose token is not known yet
        self._tokens: list[torch.Tensor] = []  # of each step, [batch]
        self._log_probs: list[torch.Tensor] = []  # of each step, [batch]
        self._mean_top_k: list[torch.Tensor] = []  # of each step, [batch]

    @classmethod
    @contextmanager
    def on(cls, lm: HFLM, *, wants_top_k: bool) -> Iterator[Self]:
        """Watch the model while the context lasts."""
        recorder = cls("input_ids" if lm.backend == "causal" else "decoder_input_ids", wants_top_k)
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
        self.dtype = dtype_of(logits)
        self._held = logits.detach().clone()  # else the prompt's logits would live on with it

    def _choose(self, tokens: torch.Tensor) -> None:
        """Note the log-probability of the tokens that were chosen by the held logits."""
        if self._held is None or len(tokens) != len(self._held):
            return
        z = self._held.float()
        total = float64_or_widest(z.device)
        top = z.amax(-1, keepdim=True)
        p = torch.nn.functional.pad((z - top).exp_(), (0, -z.shape[-1] % 64))
        log_sum = p.view(len(z), -1, 64).sum(-1).sum(-1, dtype=total).log()  # few sums are float64
        chosen = (z.gather(-1, tokens[:, None].to(z.device)) - top)[:, 0].to(total) - log_sum
        self._tokens.append(tokens)
        self._log_probs.append(chosen)
        if self._wants_top_k:
            mean = z.topk(min(TOP_K, z.shape[-1])).values.mean(-1) - top[:, 0]
            self._mean_top_k.append(log_sum - mean.to(total))

    def finish(
        self, sequences: torch.Tensor, context: torch.Tensor
    ) -> tuple[list[list[int]], Floats | None, Floats | None]:
        """Return each row's emitted tokens, their log-probabilities and ``mean_top_k`` [steps, batch].

        None where not every emitted token was seen being chosen, in its step: with beams, say.
        """
        start = context.shape[1] if self.tokens_name == "input_ids" else 1
        emitted = sequences[:, start:]
        if not emitted.shape[1]:
            return emitted.tolist(), np.zeros((0, len(emitted))), None
        if self._held is not None:
            self._choose(emitted[:, -1])
        if len(self._tokens) != emitted.shape[1]:
            return emitted.tolist(), None, None
        steps = (self._log_probs, self._tokens, self._mean_top_k)
        log_probs, chosen, *mean_top_k, found = to_host(
            *(torch.stack(of_step) for of_step in steps if of_step), emitted
        )
        tokens = found.astype(np.int64).tolist()
        if not np.array_equal(chosen.T, found):
            return tokens, None, None
        # A rounding error would be a probability above 1.
        return tokens, np.minimum(log_probs, 0.0), mean_top_k[0] if mean_top_k else None
