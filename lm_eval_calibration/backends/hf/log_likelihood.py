"""Hugging Face models: one forward per context, logits only at the positions that are scored.

The harness tokenizes and the backend makes its own model call; only ``_loglikelihood_tokens`` is ours. The output
layer gets the hidden states of the scored positions alone where the model allows that. Prefixes
that prompts share (few-shot examples, a question before its choices) are computed once, where a trial shows that the
model gives the same then; all other prompts, and all of other models, go in plain batches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from tqdm import tqdm

from lm_eval_calibration.backends.answer_types import TokenScores
from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.hf import packed, sharing
from lm_eval_calibration.backends.hf.behind import Next
from lm_eval_calibration.backends.hf.distributions import Distributions, Reduced, dtype_of, reduced
from lm_eval_calibration.backends.hf.encoding import encoding_ahead
from lm_eval_calibration.backends.hf.forward import Forward, Row, last_label_changes_nothing_before_it
from lm_eval_calibration.backends.hf.prefixes import Tokens
from lm_eval_calibration.backends.hf.sharded import joint_calls
from lm_eval_calibration.backends.hf.temperature_grid import TemperatureGrid, on_device
from lm_eval_calibration.backends.hf.transfer import Fetch, to_device
from lm_eval_calibration.backends.registry import SCORING_REQUEST_TYPE, Deliver, register

Encoded = list[tuple[Any, list[int], list[int]]]
"""What the harness makes of requests: (strings, context's tokens, continuation's tokens)."""

STOCK_METHODS = ("loglikelihood", "_loglikelihood_tokens", "_select_cont_toks", "_encode_pair")


@register("lm_eval.models.huggingface.HFLM", request_type=SCORING_REQUEST_TYPE, stock_methods=STOCK_METHODS)
def score(lm: HFLM, requests: Sequence[Any], deliver: Deliver) -> None:
    """Score every request's continuation."""

    def score_tokens(encoded: Encoded, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        _Scoring(lm, encoded, requests, deliver).run(disable_tqdm)
        return []

    with joint_calls(lm):
        _tokenize(lm, requests, score_tokens)


def _tokenize(lm: HFLM, requests: Sequence[Any], take: Callable[..., Any], **options: Any) -> None:
    """Give the requests' tokens to ``take``.

    The harness tokenizes (spaces, BOS, empty contexts) and calls the method that is replaced. It refuses models that
    think; tasks have seen to it that the prompts of these requests leave no thought open.
    """
    pairs = [request.args for request in requests]
    with encoding_ahead(lm.tokenizer, pairs), replaced(lm, _loglikelihood_tokens=take, enable_thinking=False):
        lm.loglikelihood(list(requests), **options)


class _Answered(NamedTuple):
    """A row, and the requests that it answers.

    Requests share a row when they differ in their last token only: the single-token choices of a question do. (Some
    encoder-decoders start from the last label: there only equal continuations share.)
    """

    row: Row
    answers: list[tuple[int, Tokens]]  # (number of the request, its continuation's tokens)


class _Pending(NamedTuple):
    """A batch's scores on their way to the host."""

    wanted: list[tuple[int, Sequence[int], Tokens]]  # request, its positions among the batch's logits, continuation
    sent: Fetch
    certificate: dict[str, Any]
    vocab_size: int


class _Scoring:
    """One call's requests, scored."""

    def __init__(self, lm: HFLM, encoded: Encoded, requests: Sequence[Any], deliver: Deliver) -> None:
        self.lm, self.requests, self.deliver = lm, list(requests), deliver
        self.ready: list[Any] = []  # requests that answers have made ready
        self.answered = self._rows(encoded)
        self.rows = [row for row, _ in self.answered]
        self.forward = Forward(lm, self.rows)
        # One forward serves several tasks.
        self.shares = all(getattr(request, "shared_prefixes", True) for request in requests)
        self.has_warned = False
        self.has_grid = any(getattr(request, "temperatures", False) for request in requests)

    def run(self, disable_tqdm: bool) -> None:
        """Deliver every request's scores."""
        progress = tqdm(
            total=len(self.requests), disable=disable_tqdm or self.lm.rank != 0, desc="Running token-score requests"
        )
        self.pending: _Pending | None = None
        try:
            done = self._shared(progress)
            for numbers in self._batches([i for i in range(len(self.rows)) if i not in done]):
                logits, ranges = self.forward([self.rows[i] for i in numbers])
                self._deliver(numbers, logits, ranges, progress, shared=False)
                del logits
        finally:
            self._finish(progress)
            progress.close()

    def _warn_of_broken_logits(self, index: int) -> None:
        if not self.has_warned:
            where = _location(self.requests[index])
            logger.warning("%s: the model's logits hold NaN or infinity: such docs have no log-likelihoods.", where)
        self.has_warned = True

    def _rows(self, encoded: Encoded, first: int = 0) -> list[_Answered]:
        """Group the tokenized requests, of which the first has this number, into rows."""
        lm = self.lm
        is_causal = lm.backend == "causal"
        shares = is_causal or not encoded or last_label_changes_nothing_before_it(lm, *encoded[0][1:])
        groups: dict[tuple[Tokens, Tokens], list[tuple[int, Tokens]]] = {}
        truncated = 0
        for index, (_, context, continuation) in enumerate(encoded, first):
            if not context or not 0 < len(continuation) <= lm.max_length:
                raise ValueError(
                    f"{_location(self.requests[index])}: the continuation has {len(continuation)} tokens after a "
                    f"context of {len(context)}; the model takes 1 to {lm.max_length} after at least 1"
                )
            inputs = (*context, *continuation[:-1]) if is_causal else tuple(context)
            truncated += len(inputs) > lm.max_length
            labels = () if is_causal else tuple(continuation[:-1] if shares else continuation)
            groups.setdefault((inputs[-lm.max_length :], labels), []).append((index, tuple(continuation)))
        if truncated:
            logger.warning(
                "%d of %d prompts are longer than the model's %d tokens and lose their beginning, as in a stock run.",
                truncated,
                len(encoded),
                lm.max_length,
            )
        rows = []
        for (inputs, _), answers in groups.items():
            longest = max((tokens for _, tokens in answers), key=len)
            rows.append(_Answered(Row(inputs, () if is_causal else longest, len(longest)), answers))
        return rows

    def _shared(self, progress: Any) -> set[int]:
        """Score the rows that share prefixes, if that pays and the model can; return which these were."""
        if not self.forward.picks:
            return set()
        if not self.shares:
            name = type(self.lm.model).__name__
            logger.info("%s: prompts don't share prefixes (shared_prefixes is false).", name)
            return set()
        rows = [(row.inputs, row.n_scored) for row in self.rows]
        followed = self._followed()
        chosen = sharing.choose(self.lm, rows, lambda row, n: self.forward([Row(row, (), n)])[0], followed)
        if chosen is None:
            return set()

        def consume(numbers: list[int], logits: torch.Tensor, indices: list[list[int]]) -> None:
            self._deliver(numbers, logits, indices, progress, shared=True)

        def followers() -> list[Next]:
            return self._nexts(progress) if followed.n else []

        return packed.score(self.lm, rows, *chosen, consume, followers=followers)

    def _followed(self) -> sharing.Followed:
        """Return behind which rows others will go on, and about how long those are, as the first of them shows."""
        waiting = {id(r): r for request in self.requests for r in getattr(request, "followed_by", ())}
        if not waiting:
            return sharing.NONE
        followed = [i for i, (_, own) in enumerate(self.answered) if self._are_followed(own)]
        lengths: list[int] = []

        def measure(encoded: Encoded, **_: Any) -> list[Any]:
            lengths.extend(len(context) for _, context, _ in encoded)
            return []

        first, *_ = (request for request in self.requests if getattr(request, "followed_by", ()))
        _tokenize(self.lm, [first, first.followed_by[0]], measure, disable_tqdm=True)
        prompts = {request.args[0] for request in waiting.values()}  # several continuations of one are a row
        return sharing.Followed(frozenset(followed), len(prompts), max(1, lengths[1] - lengths[0]))

    def _are_followed(self, answers: list[tuple[int, Tokens]]) -> bool:
        return any(getattr(self.requests[index], "followed_by", ()) for index, _ in answers)

    def _nexts(self, progress: Any) -> list[Next]:
        """Return rows for the requests that waited for what was sent for.

        The device idles meanwhile: their texts are known only when the answers are, and the pack's keys are dropped for
        the next one's. (What these rows give is then fetched while the next pack is computed.)
        """
        self._finish(progress)
        ready, self.ready = self.ready, []
        if not ready:
            return []
        first, number = len(self.requests), len(self.answered)
        self.requests += ready
        progress.total += len(ready)

        def add(encoded: Encoded, **_: Any) -> list[Any]:
            self.answered += self._rows(encoded, first)
            return []

        _tokenize(self.lm, ready, add, disable_tqdm=True)
        return [Next(n, row.inputs, row.n_scored) for n, (row, _) in enumerate(self.answered[number:], number)]

    def _batches(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Batch these rows as the harness does: longest first, a given size or its automatic one."""
        lm = self.lm
        # The harness's size detection reads (request, context, continuation) triples; the number rides along in front.
        triples = [(i, self.rows[i].inputs, self.rows[i].labels or (0,)) for i in numbers]
        ordered = Collator(triples, sort_fn=lambda t: (-len(t[1]) - len(t[2]), t[1], t[2]))
        automatic = lm.batch_size == "auto" and bool(triples)
        if automatic:
            lm.batch_sizes = {}
        batches = ordered.get_batched(
            n=0 if automatic else lm.batch_size, batch_fn=lm._batch_scheduler if automatic else None
        )
        for batch in batches:
            yield [number for number, _, _ in batch]

    def _deliver(
        self,
        numbers: Sequence[int],
        logits: torch.Tensor,
        indices: Sequence[Sequence[int]],
        progress: Any,
        *,
        shared: bool,
    ) -> None:
        """Send for the scores of the requests that these rows answer, and deliver those sent for before.

        So the device has its next call when the host waits. ``indices`` has each row's positions among the logits
        [n, vocab_size]. A continuation is scored at the last of them (causal) or the first (seq2seq: all have equal
        length).
        """
        certificate = self.forward.certificate | {"dtype": dtype_of(logits), "shared_prefixes": shared}
        wanted = [
            (index, of_row[-len(tokens) :], tokens)
            for number, of_row in zip(numbers, indices, strict=True)
            for index, tokens in self.answered[number].answers
        ]
        pairs = [pair for _, own, tokens in wanted for pair in zip(own, tokens, strict=True)]
        rows, tokens = to_device(pairs, logits.device).T
        of_all = on_device(logits, rows, tokens) if self.has_grid else ()
        sent = Fetch(*reduced(logits, rows, tokens), *of_all)
        self._finish(progress)
        self.pending = _Pending(wanted, sent, certificate, logits.shape[-1])

    def _finish(self, progress: Any) -> None:
        """Deliver the scores that were sent for."""
        if self.pending is None:
            return
        (wanted, sent, certificate, vocab_size), self.pending = self.pending, None
        n, fetched = len(Reduced._fields), sent.arrays()
        found = Distributions.of(fetched[:n])
        grid = TemperatureGrid(*fetched[n:]) if self.has_grid else None
        end = 0
        for index, own, continuation in wanted:
            here = slice(end, end + len(continuation))
            end = here.stop
            if not np.isfinite(found.log_normalizers[list(own)]).all():
                self._warn_of_broken_logits(index)
                self.ready += self.deliver(index, TokenScores((math.nan, False), certificate=certificate)) or ()
                continue
            scores = TokenScores(
                (float(found.target_stock_log_probs[here].sum()), bool(found.target_is_greedy[here].all())),
                log_probs=found.target_log_probs[here].copy(),
                large_probs=tuple(found.large_probs[i] for i in own),
                vocab_size=vocab_size,
                temperatures=None if grid is None else grid.scores(own, here),
                certificate=certificate,
            )
            self.ready += self.deliver(index, scores) or ()
        progress.update(len(wanted))


def _location(request: Any) -> str:
    """Name task, doc and choice, in no text of theirs."""
    return f"{request.task_name} doc {request.doc_id} choice {request.idx}"
