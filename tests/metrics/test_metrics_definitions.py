"""Every formula against its definition, written with loops."""

import itertools
import math

import numpy as np
import pytest

from lm_eval_calibration import metrics

EXACT = {"abs": 1e-12, "rel": 0}
SAMPLES = [
    {"n": 300},
    {"n": 301, "seed": 1, "ties": True},
    {"n": 203, "seed": 2, "ragged": True, "k": 6},
    {"n": 97, "seed": 3, "ragged": True, "ties": True, "k": 5},
    {"n": 7, "seed": 4, "ragged": True},
    {"n": 1, "seed": 5},
]


@pytest.fixture(params=SAMPLES, ids=str)
def sample(request, make_sample):
    return make_sample(**request.param)


@pytest.fixture(params=[1, 10, 15, 22])
def n_bins(request):
    return request.param


def bin_of(p, n_bins):
    for m in range(n_bins):
        if m / n_bins <= p < (m + 1) / n_bins:
            return m
    assert p == 1
    return n_bins - 1


def bins(forecasts, outcomes, n_bins):
    """Lists of (forecast, outcome) of the equal-width bins that are not empty."""
    found = {}
    for forecast, outcome in zip(forecasts, outcomes, strict=True):
        found.setdefault(bin_of(forecast, n_bins), []).append((forecast, float(outcome)))
    return [np.array(pairs) for pairs in found.values()]


def ranges(forecasts, outcomes, n_bins):
    """The same of the equal-mass ranges."""
    outcomes = np.asarray(outcomes, dtype=float)
    pairs = [(f, outcomes[forecasts == f].mean()) for f in forecasts]
    return [part for part in np.array_split(sorted(pairs), n_bins) if len(part)]


def gap(pairs):
    return abs(pairs[:, 1].mean() - pairs[:, 0].mean())


def classes(sample):
    """(forecasts, outcomes) of each class."""
    for k in range(max(len(row) for row in sample.probs)):
        docs = [i for i, row in enumerate(sample.probs) if len(row) > k]
        yield np.array([sample.probs[i][k] for i in docs]), np.array([sample.labels[i] == k for i in docs])


def test_ece_mce_rms_ce(sample, n_bins):
    parts = bins(sample.confidence, sample.correct, n_bins)
    n = len(sample.confidence)
    args = (sample.confidence, sample.correct)
    ece = sum(len(part) / n * gap(part) for part in parts)
    assert metrics.ece(*args, n_bins=n_bins) == pytest.approx(ece, **EXACT)
    assert metrics.mce(*args, n_bins=n_bins) == pytest.approx(max(map(gap, parts)), **EXACT)
    rms = math.sqrt(sum(len(part) / n * gap(part) ** 2 for part in parts))
    assert metrics.rms_ce(*args, n_bins=n_bins) == pytest.approx(rms, **EXACT)


def test_ace_top_label_and_one_class(sample, n_bins):
    parts = ranges(sample.confidence, sample.correct, n_bins)
    n = len(sample.confidence)
    args = (sample.confidence, sample.correct)
    weighted = sum(len(part) / n * gap(part) for part in parts)
    assert metrics.ace_top_label(*args, n_bins=n_bins) == pytest.approx(weighted, **EXACT)
    unweighted = sum(map(gap, parts)) / len(parts)
    assert metrics.ace_one_class(*args, n_bins=n_bins) == pytest.approx(unweighted, **EXACT)


def test_ace(sample, n_bins):
    of_class = [np.mean([gap(part) for part in ranges(f, o, n_bins)]) for f, o in classes(sample)]
    value = metrics.ace(sample.probs, sample.labels, n_bins=n_bins)
    assert value == pytest.approx(np.mean(of_class), **EXACT)


def test_sce(sample, n_bins):
    of_class = [sum(len(part) / len(f) * gap(part) for part in bins(f, o, n_bins)) for f, o in classes(sample)]
    value = metrics.sce(sample.probs, sample.labels, n_bins=n_bins)
    assert value == pytest.approx(np.mean(of_class), **EXACT)


def test_full_ece_choices(sample, n_bins):
    forecasts, outcomes = (np.concatenate(part) for part in zip(*classes(sample), strict=True))
    pooled = sum(len(part) * gap(part) for part in bins(forecasts, outcomes, n_bins)) / len(sample.labels)
    value = metrics.full_ece_choices(sample.probs, sample.labels, n_bins=n_bins)
    assert value == pytest.approx(pooled, **EXACT)


def test_full_ece(make_sample, n_bins):
    sample = make_sample(100, k=30)
    gaps = np.zeros(n_bins)
    for row, target in zip(sample.probs, sample.labels, strict=True):
        for k, p in enumerate(row):
            gaps[bin_of(p, n_bins)] += (target == k) - p
    value = metrics.full_ece(sample.probs, sample.labels, n_bins=n_bins)
    assert value == pytest.approx(np.abs(gaps).sum() / 100, **EXACT)


def test_proper_scores(sample):
    brier = [
        sum((p - (k == label)) ** 2 for k, p in enumerate(row))
        for row, label in zip(sample.probs, sample.labels, strict=True)
    ]
    assert metrics.brier_score(sample.probs, sample.labels) == pytest.approx(np.mean(brier), **EXACT)
    gold = [row[label] for row, label in zip(sample.probs, sample.labels, strict=True)]
    nll = [-math.log(p) if p else math.inf for p in gold]
    assert metrics.nll(sample.probs, sample.labels) == pytest.approx(np.mean(nll), **EXACT)


def test_means_over_docs(make_sample):
    confidence, correct = make_sample(300, ties=True)[2:]
    square = np.mean([(c - h) ** 2 for c, h in zip(confidence, correct.astype(float), strict=True)])
    accuracy = correct.mean()
    assert metrics.brier_top_label(confidence, correct) == pytest.approx(square, **EXACT)
    skill = 1 - square / (accuracy * (1 - accuracy))
    assert metrics.skill_score(confidence, correct) == pytest.approx(skill, **EXACT)
    over = confidence.mean() - accuracy
    assert metrics.overconfidence(confidence, correct) == pytest.approx(over, **EXACT)
    for threshold in (0.5, 0.75, 0.9, 1.0):
        wrong = [not h for c, h in zip(confidence, correct, strict=True) if c >= threshold]
        rate = metrics.confident_error_rate(confidence, correct, threshold=threshold)
        assert rate == pytest.approx(np.mean(wrong), **EXACT)


def test_ece_debiased_with_the_same_draws(make_sample):
    confidence, correct = make_sample(300)[2:]
    parts = {bin_of(part[0, 0], 10): part for part in bins(confidence, correct, 10)}
    rng = np.random.default_rng(3)
    resampled = []
    for _ in range(1000):
        error = 0
        for m in range(10):
            noise = rng.standard_normal()
            if m in parts:
                acc, conf, n = parts[m][:, 1].mean(), parts[m][:, 0].mean(), len(parts[m])
                error += n / 300 * abs(acc + noise * math.sqrt(acc * (1 - acc) / n) - conf)
        resampled.append(error)
    expected = 2 * metrics.ece(confidence, correct) - np.mean(resampled)
    assert expected > 0.01
    assert metrics.ece_debiased(confidence, correct, seed=3) == pytest.approx(expected, **EXACT)


def test_ece_debiased_bias_is_the_folded_normal_mean(make_sample):
    """Without resampling: E|X| of a normal X with mean mu and deviation s has a closed form."""
    confidence, correct = make_sample(2000, seed=8)[2:]
    bias = 0.0
    for part in bins(confidence, correct, 10):
        mu, n, acc = part[:, 1].mean() - part[:, 0].mean(), len(part), part[:, 1].mean()
        s = math.sqrt(acc * (1 - acc) / n)
        folded = s * math.sqrt(2 / math.pi) * math.exp(-(mu**2) / (2 * s**2)) + mu * math.erf(mu / (s * math.sqrt(2)))
        bias += n / 2000 * (folded - abs(mu))
    value = metrics.ece_debiased(confidence, correct)
    assert value == pytest.approx(metrics.ece(confidence, correct) - bias, abs=0.002)


def test_ce_l2_debiased(make_sample):
    confidence, correct = make_sample(300, seed=6, ties=True)[2:]
    confidence = np.where(np.arange(300) % 2, confidence, confidence * 0.9 + np.arange(300) / 1e4)
    split = np.array_split(np.sort(confidence), 10)
    uppers = [(left[-1] + right[0]) / 2 for left, right in itertools.pairwise(split)]
    groups = {}
    for c, h in zip(confidence, correct, strict=True):
        groups.setdefault(sum(c > upper for upper in uppers), []).append((c, float(h)))
    square = 0
    for pairs in map(np.array, groups.values()):
        n, acc = len(pairs), pairs[:, 1].mean()
        square += n / 300 * (gap(pairs) ** 2 - acc * (1 - acc) / (n - 1))
    assert square > 0.001
    assert metrics.ce_l2_debiased(confidence, correct) == pytest.approx(math.sqrt(square), **EXACT)


def test_auroc_is_the_share_of_pairs_in_order(make_sample):
    confidence, correct = make_sample(150, seed=7, ties=True)[2:]
    pairs = [
        1.0 if right > wrong else 0.5 if right == wrong else 0.0
        for right in confidence[correct]
        for wrong in confidence[~correct]
    ]
    assert metrics.auroc(confidence, correct) == pytest.approx(np.mean(pairs), **EXACT)


def orders(confidence, correct):
    """``correct`` from the most confident doc on, in every order of the tied docs."""
    groups = [correct[confidence == c] for c in sorted(set(confidence), reverse=True)]
    for order in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield np.concatenate(order).astype(float)


TIED = [
    ([0.9, 0.9, 0.9, 0.7, 0.7, 0.5], [1, 0, 1, 0, 1, 1]),
    ([0.5, 0.5, 0.5, 0.5, 0.5], [1, 0, 0, 1, 0]),
    ([0.2, 0.8, 0.8, 0.8, 0.8, 0.3, 0.3], [1, 1, 0, 0, 1, 0, 1]),
    ([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]),
]


@pytest.mark.parametrize(("confidence", "correct"), TIED)
def test_aurc_augrc_auprc_are_means_over_the_orders_of_ties(confidence, correct):
    confidence, correct = np.array(confidence), np.array(correct)
    n = np.arange(1, len(correct) + 1)
    aurc, augrc, auprc = [], [], []
    for hit in orders(confidence, correct):
        silent = np.append(0, np.cumsum(1 - hit)) / len(hit)
        aurc.append(np.mean(np.cumsum(1 - hit) / n))
        augrc.append(sum((a + b) / 2 / len(hit) for a, b in itertools.pairwise(silent)))
        auprc.append(np.mean((np.cumsum(hit) / n)[hit == 1]))
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(aurc), **EXACT)
    assert metrics.augrc(confidence, correct) == pytest.approx(np.mean(augrc), **EXACT)
    assert metrics.auprc(confidence, correct) == pytest.approx(np.mean(auprc), **EXACT)


def test_augrc_follows_from_auroc_and_accuracy(make_sample):
    confidence, correct = make_sample(500, seed=9, ties=True)[2:]
    a = correct.mean()
    expected = (1 - metrics.auroc(confidence, correct)) * a * (1 - a) + (1 - a) ** 2 / 2
    assert metrics.augrc(confidence, correct) == pytest.approx(expected, **EXACT)


def test_corp_decomposition_with_the_min_max_formula(make_sample):
    confidence, correct = make_sample(80, seed=10, ties=True)[2:]
    values = sorted(set(confidence))
    hits = [correct[confidence == value].astype(float) for value in values]
    mean = {(a, b): np.concatenate(hits[a : b + 1]).mean() for a in range(len(hits)) for b in range(a, len(hits))}
    isotonic = {
        value: max(min(mean[a, b] for b in range(j, len(hits))) for a in range(j + 1)) for j, value in enumerate(values)
    }
    recalibrated = np.mean([(isotonic[c] - h) ** 2 for c, h in zip(confidence, correct.astype(float), strict=True)])
    uncertainty = correct.mean() * (1 - correct.mean())
    parts = metrics.corp_decomposition(confidence, correct)
    brier = metrics.brier_top_label(confidence, correct)
    assert parts.miscalibration == pytest.approx(brier - recalibrated, **EXACT)
    assert parts.discrimination == pytest.approx(uncertainty - recalibrated, **EXACT)
    assert parts.uncertainty == pytest.approx(uncertainty, **EXACT)
    assert min(parts) > 0.001
    assert parts.miscalibration - parts.discrimination + parts.uncertainty == pytest.approx(brier, **EXACT)
