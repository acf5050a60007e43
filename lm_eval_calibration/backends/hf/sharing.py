"""Whether prompts share prefixes, and how: the cheapest plan by :mod:`cost`, by an attention that a trial has shown."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf import cost, trial
from lm_eval_calibration.backends.hf.packed import Attention, Rows, reason_unsupported, text_config
from lm_eval_calibration.backends.hf.prefixes import Plan

_AUTOMATIC = 64
"""Rows in a batch whose size the harness is still to find."""

_LEAST_TOKENS = 128
"""Of a pack: smaller ones are not thought of."""

_AS_CHEAP = 1.01
"""Times the least: of plans that cost the same, that of the fewest calls is taken."""


class Followed(NamedTuple):
    """Rows behind which others will go on, once these are scored: queries about answers."""

    rows: frozenset[int] = frozenset()
    n: int = 0  # how many rows will
    tokens: int = 0  # of each, after those that it shares


class Estimate(NamedTuple):
    """A plan, and the seconds that it and plain batches take."""

    plan: Plan
    shared: float
    plain: float


NONE = Followed()


def choose(
    lm: HFLM, rows: Rows, reference: trial.Reference, followed: Followed = NONE
) -> tuple[Plan, Attention] | None:
    """Return how these rows share prefixes (None: plain batches cost less, or, as the log says, the model can't)."""
    model, device = cost.model_of(lm.model, text_config(lm)), cost.device_of(lm.device)
    batch_size = _AUTOMATIC if lm.batch_size == "auto" else int(lm.batch_size)
    best = cheapest(model, device, rows, batch_size, followed=followed)
    if best is None:
        return None
    longest = max((tokens for tokens, _ in rows), key=len)
    n = 0 if trial.is_known(lm, len(longest)) else trial.size_of(best.plan.tokens).tokens
    on_trial = cost.Call(n, n * n / 5, n)
    if best.shared + cost.parts(model, device, on_trial).arithmetic >= best.plain:
        return None
    reason, attention = reason_unsupported(lm, len(longest)), None
    if reason is None:
        attention, reason = trial.attention_of(lm, longest, best.plan.tokens, reference)
    if attention == "masked":
        best = cheapest(model, device, rows, batch_size, attention=attention, followed=followed)
        if best is None or best.shared >= best.plain:
            return None
    if attention is None:
        logger.info("%s: prompts don't share prefixes (%s).", type(lm.model).__name__, reason)
        return None
    return best.plan, attention


def cheapest(
    model: cost.Model,
    device: cost.Device,
    rows: Rows,
    batch_size: int,
    *,
    attention: Attention = "apart",
    followed: Followed = NONE,
) -> Estimate | None:
    """Return the cheapest plan for distinct rows whose last tokens are scored (None: they share nothing)."""
    most = device.most_tokens
    n_scored = [n for _, n in rows]
    lengths = [len(tokens) for tokens, _ in rows]
    plan = Plan([tokens for tokens, _ in rows], n_scored, most, followed.rows)
    if not plan.families:
        return None
    plans = [plan]
    while (most := most // 2) >= _LEAST_TOKENS:
        plans.append(plan.with_packs_of(most))
    plans = [plan for plan in plans if cost.fits(model, device, shared_calls(plan, device))] or plans[-1:]

    def seconds(plan: Plan) -> float:
        calls = shared_calls(plan, device, attention)
        alone = cost.plain_calls([lengths[i] for i in plan.alone], [n_scored[i] for i in plan.alone], batch_size)
        return cost.seconds(model, device, [*calls, *alone, *_calls_behind(plan, lengths, followed)])

    estimates = [seconds(plan) for plan in plans]
    shared = next(estimate for estimate in estimates if estimate <= _AS_CHEAP * min(estimates))
    again = [_mean_length(lengths, followed) + followed.tokens] * followed.n
    plain_calls = cost.plain_calls(lengths, n_scored, batch_size), cost.plain_calls(again, [1] * followed.n, batch_size)
    plain = cost.seconds(model, device, chain(*plain_calls))
    return Estimate(plans[estimates.index(shared)], shared, plain)


def shared_calls(plan: Plan, device: cost.Device, attention: Attention = "apart") -> Iterator[cost.Call]:
    """Yield the calls of a plan; with attention apart each token is compared with what it sees, about."""
    for step in plan.all_steps():
        n = cost.padded(len(step.tokens), device)
        is_apart = attention == "apart"
        attended = sum(step.positions) + n if is_apart else n * (step.base + n)
        launches = cost.PACK_LAUNCHES if is_apart else cost.PLAIN_LAUNCHES
        yield cost.Call(n, attended, sum(len(scored) for _, scored in step.rows), launches)


def _calls_behind(plan: Plan, lengths: Sequence[int], followed: Followed) -> list[cost.Call]:
    """Return the calls for rows that go on behind others: one behind each pack."""
    n_calls = min(followed.n, sum(map(len, plan.families)))
    if not n_calls:
        return []
    rows = followed.n / n_calls
    tokens = round(rows * followed.tokens)
    attended = tokens * (_mean_length(lengths, followed) + followed.tokens)
    return [cost.Call(tokens, attended, round(rows), cost.PACK_LAUNCHES)] * n_calls


def _mean_length(lengths: Sequence[int], followed: Followed) -> int:
    return sum(lengths[i] for i in followed.rows) // max(1, len(followed.rows))
