"""Hugging Face models: one forward per context, logits only at the positions that are scored.

The harness tokenizes and the backend makes its own model call; only ``_loglikelihood_tokens`` is ours. The output
layer gets the hidden states of the scored positions alone where the model allows that. Prefixes
that prompts share (few-shot examples, a question before its choices) are computed once, where a trial shows that the
model gives the same then; all other prompts, and all of other models, go in plain batches.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from tqdm import tqdm

from lm_eval_calibration.backends.answer_types import TokenScores
from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.hf import packed
from lm_eval_calibration.backends.hf.distributions import Distributions, dtype_of, reduced
from lm_eval_calibration.backends.hf.forward import Forward, Row, last_label_changes_nothing_before_it
from lm_eval_calibration.backends.hf.prefixes import Plan, Tokens
from lm_eval_calibration.backends.hf.sharded import joint_calls
from lm_eval_calibration.backends.hf.temperature_grid import TemperatureGrid, on_device
from lm_eval_calibration.backends.hf.transfer import to_device, to_host
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

    # The harness tokenizes (spaces, BOS, empty contexts) and calls the method that is replaced. It refuses models that
    # think; tasks have seen to it that the prompts of these requests leave no thought open.
    with replaced(lm, _loglikelihood_tokens=score_tokens, enable_thinking=False), joint_calls(lm):
        lm.loglikelihood(list(requests))


class _Answered(NamedTuple):
    """A row, and the requests that it answers.

    Requests share a row when they differ in their last token only: the single-token choices of a question do. (Some
    encoder-decoders start from the last label: there only equal continuations share.)
    """

    row: Row
    answers: list[tuple[int, Tokens]]  # (number of the request, its continuation's tokens)


class _Scoring:
    """One call's requests, scored."""

    def __init__(self, lm: HFLM, encoded: Encoded, requests: Sequence[Any], deliver: Deliver) -> None:
        self.lm, self.requests, self.deliver = lm, requests, deliver
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
        remaining = set(range(len(self.rows)))
        for numbers, logits, indices in self._shared():
            progress.update(self._deliver(numbers, logits, indices, shared=True))
            remaining.difference_update(numbers)
        for numbers in self._batches(sorted(remaining)):
            logits, ranges = self.forward([self.rows[i] for i in numbers])
            progress.update(self._deliver(numbers, logits, ranges, shared=False))
            del logits
        progress.close()

    def _warn_of_broken_logits(self, index: int) -> None:
        if not self.has_warned:
            where = _location(self.requests[index])
            logger.warning("%s: the model's logits hold NaN or infinity: such docs have no log-likelihoods.", where)
        self.has_warned = True

    def _rows(self, encoded: Encoded) -> list[_Answered]:
        """Group the tokenized requests into rows."""
        lm = self.lm
        is_causal = lm.backend == "causal"
        shares = is_causal or not encoded or last_label_changes_nothing_before_it(lm, *encoded[0][1:])
        groups: dict[tuple[Tokens, Tokens], list[tuple[int, Tokens]]] = {}
        truncated = 0
        for index, (_, context, continuation) in enumerate(encoded):
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

    def _shared(self) -> Iterator[packed.Scored]:
        """Score the rows that share prefixes, if there are any and the model can."""
        if not self.forward.picks:
            return
        longest = max(len(row.inputs) for row in self.rows)
        max_tokens = packed.max_pack_tokens(self.lm, longest)
        plan = Plan([row.inputs for row in self.rows], [row.n_scored for row in self.rows], max_tokens)
        if plan.saved <= packed.trial_tokens(plan):
            return
        reason = packed.reason_unsupported(self.lm, longest) if self.shares else "shared_prefixes is false"
        if reason is not None:
            logger.info("%s: prompts don't share prefixes (%s).", type(self.lm.model).__name__, reason)
            return
        yield from packed.score(self.lm, plan, lambda i: self.forward([self.rows[i]])[0])

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
        self, numbers: Sequence[int], logits: torch.Tensor, indices: Sequence[Sequence[int]], *, shared: bool
    ) -> int:
        """Deliver the scores of the requests that these rows answer, and return how many they are.

        ``indices`` has each row's positions among the logits [n, vocab_size]. A continuation is scored at
        the last of them (causal) or the first (seq2seq: all have equal length).
        """
        certificate = self.forward.certificate | {"dtype": dtype_of(logits), "shared_prefixes": shared}
        wanted = [
            (index, of_row[-len(tokens) :], tokens)
            for number, of_row in zip(numbers, indices, strict=True)
            for index, tokens in self.answered[number].answers
        ]
        pairs = [pair for _, own, tokens in wanted for pair in zip(own, tokens, strict=True)]
        rows, tokens = to_device(pairs, logits.device).T
        of_one, of_all = reduced(logits, rows, tokens), on_device(logits, rows, tokens) if self.has_grid else ()
        fetched = to_host(*of_one, *of_all)
        found = Distributions.of(fetched[: len(of_one)])
        grid = TemperatureGrid(*fetched[len(of_one) :]) if of_all else None
        end = 0
        for index, own, continuation in wanted:
            here = slice(end, end + len(continuation))
            end = here.stop
            if not np.isfinite(found.log_normalizers[list(own)]).all():
                self._warn_of_broken_logits(index)
                self.deliver(index, TokenScores((math.nan, False), certificate=certificate))
                continue
            scores = TokenScores(
                (float(found.target_stock_log_probs[here].sum()), bool(found.target_is_greedy[here].all())),
                log_probs=found.target_log_probs[here].copy(),
                large_probs=tuple(found.large_probs[i] for i in own),
                vocab_size=logits.shape[-1],
                temperatures=None if grid is None else grid.scores(own, here),
                certificate=certificate,
            )
            self.deliver(index, scores)
        return len(wanted)


def _location(request: Any) -> str:
    """Name task, doc and choice, in no text of theirs."""
    return f"{request.task_name} doc {request.doc_id} choice {request.idx}"
