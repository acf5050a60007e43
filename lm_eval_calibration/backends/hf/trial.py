"""Whether a model gives the same for rows that share prefixes as for rows alone: tried once a model and process.

The smallest pack that shows it is enough: behind a cached beginning, a stem that two rows share and the rows' own
tokens. The second row's logits have to be those that it has alone, and must not change with the first row's tokens.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf.packed import Attention, PackedForward, attention_kinds, text_config
from lm_eval_calibration.backends.hf.prefixes import Step, Tokens

_PARTS = 10
"""Beginning; stem and two rows, twice; beginning, stem and a row: so many times a part's tokens are read."""

_LONGEST_PART = 12
_SHARE = 0.05
"""Of the run's tokens, that a trial may read."""

Reference = Callable[[Tokens, int], torch.Tensor]
"""The plain call on one row: logits [n, vocab_size] of its last n tokens."""


class Found(NamedTuple):
    """What a trial has shown."""

    attention: Attention | None  # the one that agrees
    reason: str  # why no other does


class _DisagreementError(Exception):
    """The model gives other logits for a pack than for its rows one by one."""


_found: "WeakKeyDictionary[torch.nn.Module, dict[Any, Found]]" = WeakKeyDictionary()


def part_of(tokens_of_run: int) -> int:
    """Return how many tokens a part of the trial has."""
    return max(1, min(_LONGEST_PART, int(_SHARE * tokens_of_run) // _PARTS))


def tokens_of(part: int) -> int:
    """Return how many tokens a trial reads."""
    return _PARTS * part


def attention_of(lm: HFLM, line: Sequence[int], part: int, reference: Reference) -> Found:
    """Return the attention with which this model shares prefixes, tried on tokens of ``line`` if it hasn't been yet.

    A trial for which there was no memory has shown nothing: it is tried again.
    """
    known = _found.setdefault(lm.model, {})
    kind = _kind(lm)
    if kind not in known:
        try:
            known[kind] = _tried(lm, line, part, reference)
        except torch.OutOfMemoryError:
            return Found(None, "no memory is left to try it")
    return known[kind]


def is_known(lm: HFLM) -> bool:
    """Whether this model has been tried."""
    return _kind(lm) in _found.get(lm.model, {})


def _kind(lm: HFLM) -> tuple[Any, ...]:
    """Return what else a trial depends on."""
    attention = getattr(text_config(lm), "_attn_implementation", None)
    return attention, lm.device, lm.model.dtype, lm.mixed_precision_dtype


def _tried(lm: HFLM, line: Sequence[int], part: int, reference: Reference) -> Found:
    own, reasons = text_config(lm)._attn_implementation, []
    candidates: tuple[Attention, ...] = ("apart", "masked") if own in ("sdpa", "eager") else ("apart",)
    for attention in candidates:
        window = getattr(text_config(lm), "sliding_window", None) or 0
        # What the model's own code makes of a mask behind its window can only be seen there.
        if attention == "masked" and "sliding_attention" in attention_kinds(text_config(lm)) and window < len(line):
            part = max(part, window // 2 + 1)
        try:
            _try(PackedForward(lm, attention, fills=False), line, part, reference)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the plain path is always there for what a model can't do
            reasons.append(str(error))
        else:
            if reasons:
                logger.info("%s: prompts share prefixes by a mask (%s).", type(lm.model).__name__, reasons[0])
            return Found(attention, "")
    return Found(None, "; ".join(dict.fromkeys(reasons)))


def _try(forward: PackedForward, line: Sequence[int], part: int, reference: Reference) -> None:
    """Raise if the second of two rows in a pack has other logits than alone, or when the first one changes."""
    tokens = list(islice(cycle(line), 4 * part))
    beginning, stem, first, second = (tokens[i * part : (i + 1) * part] for i in range(4))
    others = [(token + 1) % forward.lm.vocab_size for token in first]
    forward(Step(0, beginning, list(range(part)), [part - 1] * part, []), [0])
    positions = [*range(part, 3 * part), *range(2 * part, 3 * part)]
    ends = [3 * part - 1] * part + [2 * part - 1] * part + [3 * part - 1] * part
    scored = list(range(2 * part, 3 * part))
    step = Step(part, [*stem, *first, *second], positions, ends, [(0, scored)])
    ours = forward(step, scored)
    changed = forward(step._replace(tokens=[*stem, *others, *second]), scored)
    _compare(ours, changed, reference((*beginning, *stem, *second), part), forward.lm)


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
