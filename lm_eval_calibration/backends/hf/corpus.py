"""Hugging Face models: every token of a corpus, reduced to sums as soon as a batch of windows is computed.

Windows are the stock run's, their logits computed some positions at a time. Texts are tokenized one by one and two
batches at most are kept, where the stock run first collects the windows of all: memory beyond the texts does not grow
with the corpus.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from lm_eval_calibration.backends.answer_types import CorpusScores, TokenSums
from lm_eval_calibration.backends.hf.distributions import Distributions, Reduced, check_finite, dtype_of, reduced
from lm_eval_calibration.backends.hf.forward import Forward, Row
from lm_eval_calibration.backends.hf.log_likelihood import STOCK_METHODS
from lm_eval_calibration.backends.hf.prefixes import Tokens
from lm_eval_calibration.backends.hf.sharded import joint_calls
from lm_eval_calibration.backends.hf.transfer import Fetch, to_device
from lm_eval_calibration.backends.registry import CORPUS_REQUEST_TYPE, Deliver, register
from lm_eval_calibration.metrics import gap_sums_of_positions
from lm_eval_calibration.metrics.binning import bin_index, bin_sums

_CHUNK_ELEMENTS = {"cpu": 1 << 24, "accelerator": 1 << 28}
"""Logits at a time: 64 MiB in float32; on an accelerator, whose matrix products want many rows, 512 MiB in bfloat16."""


class _Window(NamedTuple):
    """Tokens to predict, each from those before it in the window."""

    request: int
    context: Tokens
    tokens: Tokens
    is_last: bool  # of its text


class _Text:
    """The sums over a text's windows so far."""

    def __init__(self, n_bins: int) -> None:
        self.log_likelihood, self.n_tokens, self.sums = 0.0, 0, TokenSums.zeros(n_bins)


@register(
    "lm_eval.models.huggingface.HFLM",
    request_type=CORPUS_REQUEST_TYPE,
    stock_methods=("loglikelihood_rolling", *STOCK_METHODS),
)
def score(lm: HFLM, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every text."""
    corpus = _Corpus(lm, requests, deliver)
    windows = _windows(lm, requests)
    try:
        with joint_calls(lm):
            size = int(lm._detect_batch_size() if lm.batch_size == "auto" and requests else lm.batch_size)
            while batch := list(islice(windows, size)):
                corpus.send(batch)
    finally:
        corpus.finish()
        corpus.progress.close()


class _Corpus:
    """One call's texts, scored a batch of windows at a time."""

    def __init__(self, lm: HFLM, requests: Sequence[Any], deliver: Deliver) -> None:
        self.lm, self.requests, self.deliver = lm, requests, deliver
        self.forward: Forward | None = None
        self.about: dict[str, Any] = {}
        self.texts: dict[int, _Text] = {}  # those of the batches at hand
        self.sent: tuple[list[_Window], Fetch | None] | None = None  # on its way to the host
        self.progress = tqdm(total=len(requests), disable=lm.rank != 0, desc="Running corpus requests")

    def send(self, batch: list[_Window]) -> None:
        """Compute a batch, and take what was sent for before: so the device has its next call when the host waits."""
        rows = [_row(self.lm, window) for window in batch if window.tokens]
        fetch, about = None, self.about
        if rows:
            self.forward = self.forward or Forward(self.lm, rows)
            parts, dtype, vocab_size = _reduced(self.forward, rows, [token for w in batch for token in w.tokens])
            certificate = {**self.forward.certificate, "dtype": dtype, "max_length": self.lm.max_length}
            fetch, about = Fetch(*chain(*parts)), {"vocab_size": vocab_size, "certificate": certificate}
        self.finish()
        self.sent, self.about = (batch, fetch), about

    def finish(self) -> None:
        """Add what was sent for to its texts, and deliver those that are complete."""
        if self.sent is None:
            return
        (batch, fetch), self.sent = self.sent, None
        if fetch is not None:
            _add(batch, Distributions.of(fetch.arrays()), self.texts, self.requests)
        for window in batch:
            if window.is_last:
                text = self.texts.pop(window.request, None) or _Text(self.requests[window.request].n_bins)
                scores = CorpusScores(text.log_likelihood, n_tokens=text.n_tokens, sums=text.sums, **self.about)
                self.deliver(window.request, scores)
                self.progress.update(1)


def _windows(lm: HFLM, requests: Sequence[Any]) -> Iterator[_Window]:
    """Yield the stock run's windows of all texts; a text without a token has one that is empty."""
    for index, request in enumerate(requests):
        pairs = get_rolling_token_windows(
            token_list=lm.tok_encode(request.args[0]),
            prefix_token=lm.prefix_token_id,
            max_seq_len=lm.max_length,
            context_len=1,
        )
        before: _Window | None = None
        for context, tokens in map(make_disjoint_window, pairs):
            if before is not None:
                yield before
            before = _Window(index, tuple(context), tuple(tokens), False)
        yield _Window(index, (), (), True) if before is None else before._replace(is_last=True)


def _row(lm: HFLM, window: _Window) -> Row:
    """Return the model's inputs for a window: the encoder gets the context, a causal model all but the last token."""
    if lm.backend == "seq2seq":
        return Row(window.context, window.tokens, len(window.tokens))
    inputs = (*window.context, *window.tokens[:-1])
    return Row(inputs[-lm.max_length :], (), len(window.tokens))


def _reduced(forward: Forward, rows: list[Row], tokens: list[int]) -> tuple[list[Reduced], str, int]:
    """Return what is kept of the rows' positions, each with the reference token of the same number; dtype and entries.

    It stays on the device until all of the batch is computed.
    """
    elements = _CHUNK_ELEMENTS["cpu" if forward.lm.device.type == "cpu" else "accelerator"]
    size = max(1, elements // max(1, len(forward.lm.tokenizer)))
    parts: list[Reduced] = []
    left = iter(tokens)
    shape: list[Any] = []

    def take(logits: torch.Tensor) -> None:
        own = to_device(list(islice(left, len(logits))), logits.device)
        parts.append(reduced(logits, torch.arange(len(logits), device=logits.device), own))
        shape[:] = dtype_of(logits), logits.shape[-1]

    forward.in_chunks(rows, size, take)
    dtype, vocab_size = shape
    return parts, dtype, vocab_size


def _add(batch: Sequence[_Window], found: Distributions, texts: dict[int, _Text], requests: Sequence[Any]) -> None:
    """Add the batch's tokens to their texts' sums."""
    start = 0
    for window in batch:
        request, positions = requests[window.request], slice(start, start + len(window.tokens))
        start = positions.stop
        if window.tokens:
            check_finite(found.log_normalizers[positions], f"{request.task_name} doc {request.doc_id}")
            text = texts.setdefault(window.request, _Text(request.n_bins))
            text.n_tokens += len(window.tokens)
            text.log_likelihood += float(found.target_stock_log_probs[positions].sum())
            text.sums.add(token_sums(found, positions, request.n_bins))


def token_sums(found: Distributions, positions: slice, n_bins: int) -> TokenSums:
    """Return the sums over some positions, each with the reference token of the same number."""
    large = found.large_probs[positions]
    gaps = gap_sums_of_positions(
        np.concatenate(large),
        [len(probs) for probs in large],
        np.exp(found.target_log_probs[positions]),
        n_bins=n_bins,
    )
    confidence, correct = np.exp(found.top_log_probs[positions]), found.target_is_greedy[positions]
    index = bin_index(confidence, n_bins)
    return TokenSums(
        gaps.sum(axis=0),
        np.bincount(index, minlength=n_bins),
        bin_sums(index, confidence, n_bins),
        np.bincount(index[correct], minlength=n_bins),
    )
