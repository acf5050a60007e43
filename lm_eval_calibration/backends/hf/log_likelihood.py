"""Hugging Face models: one forward per context, logits only at the positions that are scored.

The harness tokenizes and the backend makes its own model call; only ``_loglikelihood_tokens`` is ours. The output
layer is given the hidden states of the scored positions alone where the model allows that. Prompts that begin alike
(few-shot examples, a question and its choices) are computed once as far as they do, where a trial shows that the model
gives the same then; all others, and all of other models, go in plain batches.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from lm_eval.models.utils_hf import pad_and_concat
from tqdm import tqdm

from lm_eval_calibration.backends.hf import packed
from lm_eval_calibration.backends.hf.distributions import summarize
from lm_eval_calibration.backends.hf.lockstep import in_step
from lm_eval_calibration.backends.hf.output_layer import can_pick, only_positions
from lm_eval_calibration.backends.hf.prefixes import Plan, Tokens
from lm_eval_calibration.backends.hf.temperature_grid import TemperatureGrid
from lm_eval_calibration.backends.hf.transfer import to_device
from lm_eval_calibration.backends.switch import wants_temperatures
from lm_eval_calibration.backends.token_scores import TokenScores
from lm_eval_calibration.backends.versions import versions
from lm_eval_calibration.backends.vocabulary import tokenizer_fields

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Keep = Callable[[int, TokenScores], None]

_OURS_ONLY_IF_STOCK = ("loglikelihood", "_loglikelihood_tokens", "_select_cont_toks", "_encode_pair")


def refusal(lm: HFLM) -> str | None:
    """Say which stock method of scoring the backend overrides, if any: what it overrides must not be ignored."""
    changed = [name for name in _OURS_ONLY_IF_STOCK if getattr(type(lm), name) is not getattr(HFLM, name)]
    return f"it has a {changed[0]} of its own" if changed else None


def answer(lm: HFLM, requests: Sequence[Any], keep: Keep) -> None:
    """Score every request (see :func:`lm_eval_calibration.backends.token_scores`)."""

    def score(encoded: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        rows = _rows(lm, encoded, requests)
        _score_rows(lm, rows, requests, keep, disable_tqdm)
        return []

    # The instance attribute shadows the class's method while the harness tokenizes (spaces, BOS, empty contexts).
    lm._loglikelihood_tokens = score
    try:
        with in_step(lm):
            lm.loglikelihood(list(requests))
    finally:
        del lm._loglikelihood_tokens


class _Row(NamedTuple):
    """One line of a batch: a context with the tokens that follow it, and the requests it answers.

    Requests share a row when they differ in their last token only: the single-token choices of a question do. (Some
    encoder-decoders start from the last label: there only equal continuations share.)
    """

    inputs: Tokens  # what the decoder (causal) or the encoder (seq2seq) reads
    labels: Tokens  # seq2seq: one of the continuations; causal: empty
    n_scored: int  # positions needed, counted from the end (causal) or all of the labels (seq2seq)
    answers: list[tuple[int, Tokens]]  # (index of the request, its continuation's tokens)


def _rows(lm: HFLM, encoded: list[tuple[Any, list[int], list[int]]], requests: Sequence[Any]) -> list[_Row]:
    """Group the tokenized requests into rows, longest first."""
    shares = lm.backend == "causal" or _last_label_changes_nothing_before_it(lm, encoded)
    groups: dict[tuple[Tokens, Tokens], list[tuple[int, Tokens]]] = {}
    truncated = 0
    for index, (_, context, continuation) in enumerate(encoded):
        if not context or not 0 < len(continuation) <= lm.max_length:
            raise ValueError(
                f"{_name(requests[index])}: the continuation has {len(continuation)} tokens after a context of "
                f"{len(context)}; the model takes 1 to {lm.max_length} after at least 1"
            )
        if lm.backend == "causal":
            whole = (*context, *continuation[:-1])
            truncated += len(whole) > lm.max_length
            key: tuple[Tokens, Tokens] = (whole[-lm.max_length :], ())
        else:
            truncated += len(context) > lm.max_length
            key = (tuple(context[-lm.max_length :]), tuple(continuation[:-1] if shares else continuation))
        groups.setdefault(key, []).append((index, tuple(continuation)))
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
        rows.append(_Row(inputs, () if lm.backend == "causal" else longest, len(longest), answers))
    return rows


def _score_rows(lm: HFLM, rows: list[_Row], requests: Sequence[Any], keep: Keep, disable_tqdm: bool) -> None:
    forward = _Forward(lm, rows)
    progress = tqdm(
        total=sum(len(row.answers) for row in rows),
        disable=disable_tqdm or lm.rank != 0,
        desc="Running token-score requests",
    )
    todo = set(range(len(rows)))

    def answer(numbers: list[int], logits: torch.Tensor, where: Sequence[Sequence[int]], shared: bool) -> None:
        certificate = {**forward.certificate, "dtype": str(logits.dtype).removeprefix("torch.")}
        certificate["shared_prefixes"] = shared
        grid = TemperatureGrid(logits) if wants_temperatures(lm) else None
        scored = [(rows[i], spots) for i, spots in zip(numbers, where, strict=True)]
        for index, scores in _answers(scored, logits, grid, certificate, requests):
            keep(index, scores)
            progress.update(1)
        todo.difference_update(numbers)

    for found in _sharing(lm, rows, forward):
        answer(*found, shared=True)
    for numbers in _batches(lm, rows, sorted(todo)):
        answer(numbers, *forward([rows[i] for i in numbers]), shared=False)
    progress.close()


def _sharing(lm: HFLM, rows: list[_Row], forward: "_Forward") -> Iterator[packed.Scored]:
    """Score the rows that begin alike, if there are any and the model can."""
    if not forward.picks:
        return
    longest = max(len(row.inputs) for row in rows)
    most = packed.most_tokens(lm, longest)
    plan = Plan([row.inputs for row in rows], [row.n_scored for row in rows], most)
    if plan.saved <= packed.trial_tokens(plan):
        return
    if reason := packed.refusal(lm, longest):
        logger.info("%s: prompts don't share their beginnings (%s).", type(lm.model).__name__, reason)
        return
    yield from packed.score(lm, plan, lambda i: forward([rows[i]])[0])


def _batches(lm: HFLM, rows: list[_Row], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Batch these rows as the harness does: longest first, a given size or its automatic one."""
    # The harness's size detection reads (request, context, continuation) triples; the number rides along in front.
    triples = [(i, rows[i].inputs, rows[i].labels or (0,)) for i in numbers]
    ordered = Collator(triples, sort_fn=lambda t: (-len(t[1]) - len(t[2]), t[1], t[2]))
    automatic = lm.batch_size == "auto" and bool(triples)
    if automatic:
        lm.batch_sizes = {}
    batches = ordered.get_batched(
        n=0 if automatic else lm.batch_size, batch_fn=lm._batch_scheduler if automatic else None
    )
    for batch in batches:
        yield [number for number, _, _ in batch]


class _Forward:
    """The backend's own model call on a batch of rows, reduced to the logits of the scored positions."""

    def __init__(self, lm: HFLM, rows: list[_Row]) -> None:
        self.lm = lm
        self.picks = lm.backend == "causal" and bool(rows) and can_pick(lm, rows[0].inputs)
        self.certificate: dict[str, Any] = {
            "backend": type(lm).__name__,
            "distributions": "exact",
            **tokenizer_fields(lm),
            "versions": versions("lm-eval", "transformers", "torch"),
        }

    def __call__(self, batch: list[_Row]) -> tuple[torch.Tensor, list[range]]:
        """Return logits [n, vocab_size] and, for each row of the batch, which of the n are its positions."""
        logits = self._seq2seq(batch) if self.lm.backend == "seq2seq" else self._causal(batch)
        ends = [0]
        for row in batch:
            ends.append(ends[-1] + row.n_scored)
        return logits, [range(a, b) for a, b in pairwise(ends)]

    def _causal(self, batch: list[_Row]) -> torch.Tensor:
        inputs = _pad([row.inputs for row in batch], self.lm.device)
        row, position = _scored_positions(batch, self.lm.device)
        if self.picks:
            with only_positions(self.lm, row, position, inputs.shape[1]):
                logits: torch.Tensor = self.lm._model_call(inputs)
            return logits[0]
        logits = self.lm._model_call(inputs)
        # Tokens of prompt tuning stand before the inputs and have logits too.
        picked: torch.Tensor = logits[row, position + (logits.shape[1] - inputs.shape[1])]
        return picked

    def _seq2seq(self, batch: list[_Row]) -> torch.Tensor:
        device = self.lm.device
        inputs = _pad([row.inputs for row in batch], device)
        labels = _pad([row.labels[-self.lm.max_length :] for row in batch], device)
        mask = _pad([(1,) * len(row.inputs) for row in batch], device)
        logits = self.lm._model_call(inputs, attn_mask=mask, labels=labels)
        return torch.cat([logits[i, : row.n_scored] for i, row in enumerate(batch)])


def _pad(rows: list[Tokens], device: torch.device) -> torch.Tensor:
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return to_device(pad_and_concat(max(map(len, rows)), tensors, padding_side="right"), device)


def _scored_positions(batch: list[_Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and position of every token distribution wanted: the last ``n_scored`` inputs of each row."""
    pairs = [
        (i, position)
        for i, row in enumerate(batch)
        for position in range(len(row.inputs) - row.n_scored, len(row.inputs))
    ]
    row, position = to_device(pairs, device).T
    return row, position


def _last_label_changes_nothing_before_it(lm: HFLM, encoded: list[tuple[Any, list[int], list[int]]]) -> bool:
    """Try it once: mBART and its kin put the last label in front as the decoder's start."""
    _, context, continuation = encoded[0]
    first = continuation[0] if continuation else 0
    inputs = _pad([tuple(context[:8])] * 2, lm.device)
    labels = torch.tensor([[first, 2], [first, 3]], device=lm.device)
    logits = lm._model_call(inputs, attn_mask=torch.ones_like(inputs), labels=labels).float()
    same: bool = torch.allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5, equal_nan=True)
    return same


def _answers(
    batch: list[tuple[_Row, Sequence[int]]],
    logits: torch.Tensor,
    grid: TemperatureGrid | None,
    certificate: dict[str, Any],
    requests: Sequence[Any],
) -> Iterator[tuple[int, TokenScores]]:
    """Yield each request's index and scores, from the rows and which of the logits are their positions."""
    # A continuation is scored at the last positions of its row (causal) or the first (seq2seq: all have equal length).
    wanted = [(index, spots[-len(tokens) :], tokens) for row, spots in batch for index, tokens in row.answers]
    pairs = [pair for _, spots, tokens in wanted for pair in zip(spots, tokens, strict=True)]
    rows, tokens = to_device(pairs, logits.device).T
    found = summarize(logits, rows, tokens)
    at_temperatures = None if grid is None else grid.targets(rows, tokens)
    start = 0
    for index, spots, continuation in wanted:
        normalizers = found.log_normalizers[list(spots)]
        if not (abs(normalizers) < float("inf")).all():
            raise ValueError(
                f"{_name(requests[index])}: the model's logits hold NaN or infinity (log-sum-exp {normalizers})"
            )
        end = start + len(continuation)
        pair = (float(found.target_stock_log_probs[start:end].sum()), bool(found.target_is_greedy[start:end].all()))
        yield (
            index,
            TokenScores(
                pair,
                log_probs=found.target_log_probs[start:end].copy(),
                large_probs=tuple(found.large_probs[spot] for spot in spots),
                vocab_size=logits.shape[-1],
                temperatures=(
                    grid.scores(spots, at_temperatures[start:end])
                    if grid is not None and at_temperatures is not None
                    else None
                ),
                certificate=certificate,
            ),
        )
        start = end


def _name(request: Any) -> str:
    """Name the place in the data: task, doc and choice."""
    return f"{request.task_name} doc {request.doc_id} choice {request.idx} ({request.args[1]!r})"
