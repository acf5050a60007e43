"""The model's calls for rows that share prefixes (see :mod:`prefixes`): one line of tokens behind a cache, and a mask.

A pack is one line [1, length]: no padding, no copy of the cache for each row. Its attention mask lets every token see
the cached ones and those of its own row; sliding windows are cut by position there too, so the cache keeps all tokens
of one row at most. Models differ in what they make of such a mask, so the first packs of a run, with a cache before
them and without, are compared with the plain call before any of it is believed.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isqrt
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf.output_layer import cache_argument, only_positions
from lm_eval_calibration.backends.hf.prefixes import Plan, Step
from lm_eval_calibration.backends.hf.transfer import to_device

_WEIGHTS_PER_ENTRY = 8
"""Reading so many weights costs a CPU about as much as one entry of an attention matrix (6 to 15 were measured; the
best length changes with the root of it, and the cost little around that)."""

_ATTENTION = ("full_attention", "sliding_attention")


def reason_unsupported(lm: HFLM, longest: int) -> str | None:
    """Say why prompts of up to ``longest`` tokens can't share prefixes (None: they can, as far as is known)."""
    config = _text_config(lm)
    attention = getattr(config, "_attn_implementation", None)
    unknown = sorted(set(_attention_kinds(config)).difference(_ATTENTION), key=str)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    key = "original_max_position_embeddings"
    depends_on_length = rope.get("rope_type") in ("dynamic", "longrope")
    adapter = getattr(lm.model, "active_peft_config", None)
    reasons = {
        f"{type(lm).__name__} has a model call of its own": type(lm)._model_call is not HFLM._model_call,
        "its adapter puts tokens before the prompt": getattr(adapter, "is_prompt_learning", False),
        f"it has layers of type {', '.join(map(str, unknown))}": unknown,
        f"its attention is {attention}": attention not in ("sdpa", "eager"),
        "its position encoding depends on the prompt's length": depends_on_length
        and longest > (getattr(config, key, None) or rope.get(key) or 0),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _text_config(lm: HFLM) -> Any:
    """Return the language model's configuration; models from elsewhere have their own classes of it."""
    config: Any = getattr(lm.model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _attention_kinds(config: Any) -> list[str]:
    window = getattr(config, "sliding_window", None)
    return list(getattr(config, "layer_types", None) or [_ATTENTION[1] if window else _ATTENTION[0]])


def max_pack_tokens(lm: HFLM, longest: int) -> int:
    """Return how many tokens a pack may hold: no more than the longest batch of a stock run.

    A call of the model on a pack of L tokens reads all weights, so a token pays for weights / L of them; and a token's
    attention over the pack is L entries in every layer and head. On a CPU an entry (two products, mask, softmax) costs
    about as much as reading 8 weights, so a token costs least where L^2 = weights / (8 * layers * heads): 249 for
    SmolLM2-135M, 682 for Gemma 3 270M, which has twice the weights, most of them in its output layer, and a quarter of
    the heads. An accelerator is better kept busy, up to what logits for every token of a pack may take (1 GiB in half
    precision at 262,144 entries).
    """
    most = 2048
    if lm.device.type == "cpu":
        config = _text_config(lm)
        heads, layers = (getattr(config, name, None) for name in ("num_attention_heads", "num_hidden_layers"))
        matrices = heads * layers if isinstance(heads, int) and isinstance(layers, int) else 0
        most = min(max(isqrt(_weights_read(lm.model) // (_WEIGHTS_PER_ENTRY * max(matrices, 1))), 128), 1024)
    return most if lm.batch_size == "auto" else min(most, int(lm.batch_size) * longest)


def _weights_read(model: Any) -> int:
    """Count the weights that a call reads: all but those of an embedding that is looked up only."""
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    is_output_too = embedding is model.get_output_embeddings().weight
    only_looked_up = 0 if embedding is None or is_output_too else embedding.numel()
    return int(sum(p.numel() for p in model.parameters()) - only_looked_up)


class _DisagreementError(Exception):
    """The model gives other logits for a pack than for its rows one by one."""


class PackedForward:
    """Calls of the model on the steps of a plan, one family after the other."""

    def __init__(self, lm: HFLM) -> None:
        self.lm, self.config = lm, _text_config(lm)
        self.kinds = sorted(set(_attention_kinds(self.config)))
        self.cache = DynamicCache()  # without a configuration: every layer keeps every token
        self.cached = 0
        self.cache_argument = cache_argument(lm)

    def __call__(self, step: Step, columns: Sequence[int]) -> torch.Tensor:
        """Return the logits [n, vocab_size] of these of the step's tokens."""
        if step.base == 0:
            self.cache, self.cached = DynamicCache(), 0
        if step.base < self.cached:
            self.cache.crop(step.base - self.cached)  # negative: so many from the end
        self.cached = step.base + len(step.tokens)
        lm, device = self.lm, self.lm.device
        tokens, positions, ends = to_device([step.tokens, step.positions, step.ends], device)
        masks = {kind: self._mask(kind, step.base, positions, ends) for kind in self.kinds}
        picked = to_device(columns, device)
        dtype = lm.mixed_precision_dtype
        with (
            torch.no_grad(),
            torch.autocast(device_type=device.type, dtype=dtype, enabled=dtype is not None),
            only_positions(lm, torch.zeros_like(picked), picked, len(step.tokens)),
        ):
            logits: torch.Tensor = lm.model(
                tokens[None],
                attention_mask=masks if len(masks) > 1 else masks[self.kinds[0]],
                position_ids=positions[None],
                use_cache=True,
                **{self.cache_argument: self.cache},
            ).logits
        return logits[0]

    def _mask(self, kind: str, base: int, positions: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Return which tokens each new one sees, [1, 1, new, cached + new]."""
        device, n = positions.device, len(positions)
        new = torch.arange(n, device=device)
        start = torch.cat([torch.full((base,), -1, device=device), new])
        end = torch.cat([torch.full((base,), n, device=device), ends])
        sees = (start <= new[:, None]) & (new[:, None] <= end)
        if kind == "sliding_attention":
            seen = torch.cat([torch.arange(base, device=device), positions])
            sees &= positions[:, None] - seen < self.config.sliding_window
        if self.config._attn_implementation == "eager":  # adds its mask
            dtype = self.lm.model.dtype
            mask = torch.zeros(1, 1, *sees.shape, dtype=dtype, device=device)
            return mask.masked_fill_(~sees, torch.finfo(dtype).min)
        return sees[None, None]


Kind = tuple[bool, bool]
"""Whether a pack has other rows to be kept apart from, and whether it comes behind a cache."""

Scored = tuple[list[int], torch.Tensor, list[list[int]]]
"""Rows by number, logits [n, vocab_size], and for each row which of the n are its scored positions."""


def score(lm: HFLM, plan: Plan, reference: Callable[[int], torch.Tensor]) -> Iterator[Scored]:
    """Yield every family's rows with their logits; stop early, with a line in the log, if the model can't be packed.

    ``reference`` is the plain call on one row: it returns logits [n_scored, vocab_size].
    """
    forward = PackedForward(lm)
    tried: set[Kind] = set()
    for step in (step for family in plan.families for step in plan.steps(family)):
        columns = sorted({column for _, scored in step.rows for column in scored}) or [0]
        on_trial = _is_new(step, tried)
        try:
            changed = forward(_with_others_changed(step), columns) if on_trial else None
            logits = forward(step, columns)
            if changed is not None:
                row, scored = step.rows[-1]
                picked = [columns.index(i) for i in scored]
                _compare(logits[picked], changed[picked], reference(row), lm)
        except Exception as error:  # the plain path is always there for what a model can't do
            if tried and not on_trial:
                raise
            logger.info("%s: prompts don't share prefixes (%s).", type(lm.model).__name__, error)
            return
        if step.rows:
            tried.add(_kind(step))
            index = {column: i for i, column in enumerate(columns)}
            yield [row for row, _ in step.rows], logits, [[index[i] for i in scored] for _, scored in step.rows]


def trial_tokens(plan: Plan) -> int:
    """Count the tokens that :func:`score` reads only to try the model: a pack again and a row alone, for each kind."""
    tried: set[Kind] = set()
    n = 0
    for step in (step for family in plan.families for step in plan.steps(family)):
        if _is_new(step, tried):
            tried.add(_kind(step))
            n += len(step.tokens) + step.positions[step.rows[-1][1][-1]] + 1
            if tried.issuperset({(True, True), (True, False)}):
                break
    return n


def _kind(step: Step) -> Kind:
    return len(step.rows) > 1, step.base > 0


def _is_new(step: Step, tried: set[Kind]) -> bool:
    """Whether the model has not been tried with a pack of this kind, or a harder one of several rows."""
    kind = _kind(step)
    return bool(step.rows) and tried.isdisjoint({kind, (True, kind[1])})


def _with_others_changed(step: Step) -> Step:
    """Return the step with other tokens wherever its last row must not see them."""
    last = step.rows[-1][1][-1]
    ends = enumerate(zip(step.tokens, step.ends, strict=True))
    return step._replace(tokens=[token if start <= last <= end else step.tokens[last] for start, (token, end) in ends])


def _compare(ours: torch.Tensor, changed: torch.Tensor, plain: torch.Tensor, lm: HFLM) -> None:
    """Raise if a row has other logits than alone, or other ones when the rows beside it change.

    The first can't be told from rounding beyond a point: differences of log-probabilities, in units of their spread
    over the vocabulary, are some 3e-6 in float32 and 0.05 in bfloat16 for SmolLM2-135M. The second can: a hidden
    token counts 0, whatever it is.
    """
    types = {plain.dtype, lm.model.dtype, lm.mixed_precision_dtype or plain.dtype}
    rounding = max(1e-5, *(torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point))
    for where, logits, tolerance in (("alone", plain, 16 * rounding), ("beside other prompts", changed, rounding)):
        difference = _difference(ours, logits)
        if not difference <= tolerance:
            raise _DisagreementError(f"its logits differ {where}, by {difference:.2g} of their spread")


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the root mean square difference of log-probabilities, in units of their spread over the vocabulary."""
    a, b = a.float().log_softmax(-1), b.float().log_softmax(-1)
    return float(((a - b).square().mean() / b.var(dim=-1).mean()).sqrt())
