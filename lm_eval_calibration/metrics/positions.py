"""How much of a model's confidence is only a choice's position: one doc scored under several orders of its choices.

``probs`` holds, for each doc, the choice probabilities under each order, [n_orders, K], columns in the doc's own
order of choices (not in the order shown). Docs may have different numbers of orders and choices. ValueError names
the first bad doc, order and value.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.validation import FloatArray, check_distributions, undefined


def position_spread(probs: Sequence[ArrayLike]) -> float:
    """Probability that moves between choices when only their order changes.

    mean_i mean_j 1/2 sum_k abs(p_ijk - mean_j p_ijk): the total variation distance of order j's probabilities from
    their mean over the orders, averaged over the n_orders orders of each doc, then over docs.

    probs: N arrays [n_orders_i, K_i]; rows sum to 1.
    Returns probability, 0 (the order does not matter) to 1 - 1/n_orders; 0 for docs scored under one order. Raises
    ValueError for bad input; the message names doc, order and value.
    """
    return float(np.mean([_spread(orders) for orders in _check_orders(probs)]))


def answer_changes(probs: Sequence[ArrayLike]) -> float:
    """How often two orders of the same choices give two answers.

    mean_i (1 - sum_k n_ik (n_ik - 1) / (n_i (n_i - 1))): the share of pairs of a doc's n_i orders whose most
    probable choices differ (n_ik orders answer choice k; the first of equals is the answer), averaged over docs.
    It does not grow with the number of orders, as "did any order change it" would. Docs scored under one order are
    left out.

    probs: N arrays [n_orders_i, K_i]; rows sum to 1.
    Returns share of pairs, 0 (best) to 1; nan where no doc was scored under two orders. Raises ValueError: bad input;
    the message names doc, order and value.
    """
    docs = [orders for orders in _check_orders(probs) if len(orders) > 1]
    if not docs:
        return undefined("answer_changes is undefined: no doc was scored under two orders")
    return float(np.mean([_changes(orders) for orders in docs]))


def _spread(orders: FloatArray) -> float:
    return float(np.abs(orders - orders.mean(axis=0)).sum(axis=1).mean() / 2)


def _changes(orders: FloatArray) -> float:
    n_orders, n_choices = orders.shape
    n = np.bincount(orders.argmax(axis=1), minlength=n_choices)
    return float(1 - (n * (n - 1)).sum() / (n_orders * (n_orders - 1)))


def _check_orders(probs: Sequence[ArrayLike]) -> list[FloatArray]:
    docs = [np.asarray(orders, dtype=np.float64) for orders in probs]
    if not docs:
        raise ValueError("probs is empty")
    for i, orders in enumerate(docs):
        if orders.ndim != 2 or 0 in orders.shape:
            raise ValueError(f"probs[{i}] has shape {orders.shape}; it must be [n_orders, K]")
        try:
            check_distributions(orders, 0)
        except ValueError as error:
            raise ValueError(f"doc {i}: {error}") from error
    return docs
