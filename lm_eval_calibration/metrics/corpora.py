"""Calibration of every token of a corpus, from sums over the tokens of each doc: sums of docs, shards and ranks add up.

Top-label here: of each position only the most probable token and its probability. For every vocabulary entry see
:func:`~lm_eval_calibration.metrics.full_vocabulary.full_ece_from_gap_sums`. Tokens of one text depend on each other:
standard errors are bootstraps over docs.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.token_sums import check_token_counts, check_token_gaps
from lm_eval_calibration.metrics.uncertainty.clusters import degrees_of_freedom, influence_stderr
from lm_eval_calibration.metrics.uncertainty.gap_vectors import ratio_gaps, too_few_texts
from lm_eval_calibration.metrics.uncertainty.intervals import (
    Estimate,
    logit_interval,
    too_few_docs,
    undefined_estimate,
)
from lm_eval_calibration.metrics.uncertainty.inversion import inverted_tests
from lm_eval_calibration.metrics.uncertainty.resampling import ratio_stderr
from lm_eval_calibration.metrics.validation import FloatArray, IntArray


@metric(
    "token_gaps",
    name="ece",
    higher_is_better=False,
    core=("corpus",),
    order=5,
    stderr=ratio_stderr,
    estimate=inverted_tests(ratio_gaps, refuse=too_few_texts),
)
def token_ece(gaps: ArrayLike, n_tokens: ArrayLike) -> float:
    """Token-level top-label calibration error: (1 / N) sum_m |sum_i gap_im| over equal-width bins m of confidence.

    The ``ece`` of all N tokens, each a forecast that the model's most probable token is the text's own.

    gaps: [n_docs, n_bins] sum over the doc's tokens in each bin of (correct - confidence). n_tokens: [n_docs] number
    of tokens of each doc, at least 1.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    """
    gaps, n = check_token_gaps(gaps, n_tokens)
    return float(np.abs(gaps.sum(axis=0)).sum() / n.sum())


def _share_estimate(correct: FloatArray, n: IntArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """A ratio of sums over texts: Student's t on the logit scale, of as many texts as their lengths are worth.

    Each text adds (correct_i - share n_i) / mean(n) to it. With t = sum(n)^2 / sum(n^2) effective texts it has t - 1
    degrees of freedom: one long text among short ones counts for most. The standard error is the jackknife's, which
    leaves out one text at a time: a long text pulls the share towards itself, and looks less apart from it than it is.
    Where how often tokens are right hangs on the text's length and lengths differ by an order of magnitude, the
    interval holds less than its level all the same: the few longest texts decide, and most samples have none of them.
    """
    share, n_texts = float(correct.sum() / n.sum()), len(n)
    if reason := too_few_docs(n_texts) or too_few_texts(correct, n):
        return undefined_estimate(n_texts, reason)
    influence = np.asarray((correct - share * n) / n.mean(), dtype=np.float64)
    stderr = influence_stderr(influence / (1 - n / n.sum()), cluster)
    if not 0 < share < 1 or stderr == 0:
        return undefined_estimate(n_texts, "no interval: all tokens are right or none is, or all texts are alike")
    freedom = max(1.0, float(n.sum()) ** 2 / float(np.sum(n.astype(np.float64) ** 2)) - 1)
    freedom = min(freedom, degrees_of_freedom(n_texts, cluster))
    return Estimate(share, *logit_interval(share, stderr, float(-stdtrit(freedom, (1 - level) / 2))), influence)


@metric("token_counts", higher_is_better=True, core=("corpus",), order=6, stderr=ratio_stderr, estimate=_share_estimate)
def token_accuracy(n_correct: ArrayLike, n_tokens: ArrayLike) -> float:
    """Share of the tokens that are the model's most probable one: sum_i n_correct_i / sum_i n_tokens_i.

    n_correct: [n_docs] tokens of each doc that are. n_tokens: [n_docs] tokens of each doc, at least 1.
    Returns a share, 0 to 1 (best). Raises ValueError for bad input, naming the row and the value.
    """
    correct, n = check_token_counts(n_correct, n_tokens)
    return float(correct.sum() / n.sum())
