"""Whether a model gives the same for rows that share prefixes as for rows alone: tried once a model and process.

The smallest pack that shows it is enough: behind a cached beginning, a stem that two rows share and the rows' own
tokens; where the model's configuration names a length that a token sees, and rows are longer, a beginning beyond that.
The second row's logits have to be those that it has alone, and must not change with the first row's tokens.
"""

import re
from collections.abc import Callable, Collection, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf.packed import Attention, PackedForward, text_config
from lm_eval_calibration.backends.hf.prefixes import Step, Tokens

_SHORT_PARTS = 8
"""Stem and two rows, twice; stem and a row: so many times a part's tokens are read. The beginning is read twice."""

_LONGEST_PART = 12
_SHARE = 0.05
"""Of the run's tokens, that a trial may read."""

_LIMITS_REACH = re.compile("(window|local_att|chunk|index_topk|block_size)(?!.*(layers|pattern))")
"""Names in configurations of how far a token sees, or how many others."""

Reference = Callable[[Tokens, int], torch.Tensor]
"""The plain call on one row: logits [n, vocab_size] of its last n tokens."""


class Found(NamedTuple):
    """What a trial has shown."""

    attention: Attention | None  # the one that agrees
    reason: str  # why no other does


class _DisagreementError(Exception):
    """The model gives other logits for a pack than for its rows one by one."""


class _TooLongError(Exception):
    """A trial would read too large a part of the run."""


_found: "WeakKeyDictionary[torch.nn.Module, dict[Any, Found]]" = WeakKeyDictionary()


class Size(NamedTuple):
    """Of a trial: tokens of the beginning, and of each other part."""

    beginning: int
    part: int

    @property
    def tokens(self) -> int:
        """All that are read."""
        return 2 * self.beginning + _SHORT_PARTS * self.part


def size_of(tokens_of_run: int, reach: int = 0) -> Size:
    """Return the size of a trial, its beginning as long as this reach if the rows would not be longer."""
    budget = int(_SHARE * tokens_of_run)
    part = max(1, min(_LONGEST_PART, budget // (2 + _SHORT_PARTS)))
    if reach < 3 * part:
        return Size(part, part)
    return Size(reach, max(1, min(_LONGEST_PART, (budget - 2 * reach) // _SHORT_PARTS)))


def attention_of(lm: HFLM, line: Sequence[int], tokens_of_run: int, reference: Reference) -> Found:
    """Return the attention with which this model shares prefixes, tried on tokens of ``line`` if it hasn't been yet.

    ``line`` is the run's longest row. What was not tried, as memory or the run are too small, is tried again.
    """
    known = _found.setdefault(lm.model, {})
    kind = _kind(lm, len(line))
    if kind not in known:
        try:
            known[kind] = _tried(lm, line, tokens_of_run, reference)
        except torch.OutOfMemoryError:
            return Found(None, "no memory is left to try it")
        except _TooLongError as error:
            return Found(None, str(error))
    return known[kind]


def is_known(lm: HFLM, longest: int) -> bool:
    """Whether this model has been tried for rows of up to so many tokens."""
    return _kind(lm, longest) in _found.get(lm.model, {})


def reaches(config: Any, longest: int, *, but: Collection[str] = ()) -> list[int]:
    """Return what this text configuration says of how far tokens see, if rows of up to ``longest`` tokens go beyond."""
    values = ((name, value) for name, value in vars(config).items() if _LIMITS_REACH.search(name) and name not in but)
    return sorted(value for _, value in values if isinstance(value, int) and 0 < value < longest)


def _kind(lm: HFLM, longest: int) -> tuple[Any, ...]:
    """Return what else a trial depends on."""
    config = text_config(lm)
    attention = getattr(config, "_attn_implementation", None)
    return attention, lm.device, lm.model.dtype, lm.mixed_precision_dtype, *reaches(config, longest)


def _tried(lm: HFLM, line: Sequence[int], tokens_of_run: int, reference: Reference) -> Found:
    config = text_config(lm)
    reasons: list[str] = []
    candidates: tuple[Attention, ...] = ("apart", "masked")
    for attention in candidates if config._attn_implementation in ("sdpa", "eager") else candidates[:1]:
        # A sliding window is cut by our attention, which has seen to it that the model's code means the same one. All
        # else that happens behind some length can only be seen there, as what the code makes of a mask.
        handled = ("sliding_window",) if attention == "apart" else ()
        reach = max(reaches(config, len(line), but=handled), default=0)
        size = size_of(tokens_of_run, reach)
        if size.beginning > size.part and size.tokens > _SHARE * tokens_of_run:
            raise _TooLongError(f"the run is too small for a trial beyond the {reach} tokens of its configuration")
        try:
            _try(PackedForward(lm, attention, fills=False), line, size, reference)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the plain path is always there for what a model can't do
            reasons.append(str(error))
        else:
            if reasons:
                logger.info("%s: prompts share prefixes by a mask (%s).", type(lm.model).__name__, reasons[0])
            return Found(attention, "")
    return Found(None, "; ".join(dict.fromkeys(reasons)))


def _try(forward: PackedForward, line: Sequence[int], size: Size, reference: Reference) -> None:
    """Raise if the second of two rows in a pack has other logits than alone, or when the first one changes."""
    begin, part = size
    tokens = iter(cycle(line))
    beginning, stem, first, second = (list(islice(tokens, n)) for n in (begin, part, part, part))
    others = [(token + 1) % forward.lm.vocab_size for token in first]
    forward(Step(0, beginning, list(range(begin)), [begin - 1] * begin, []), [0])
    positions = [*range(begin, begin + 2 * part), *range(begin + part, begin + 2 * part)]
    ends = [3 * part - 1] * part + [2 * part - 1] * part + [3 * part - 1] * part
    scored = list(range(2 * part, 3 * part))
    step = Step(begin, [*stem, *first, *second], positions, ends, [(0, scored)])
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
