"""Values of other people's implementations, where they compute the same thing."""

import numpy as np
import pytest

from lm_eval_calibration import metrics


@pytest.fixture(scope="module")
def uniform():
    """3,000 docs with confidences all over (0, 1) and no ties."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0, 1, 3000)
    return confidence, (rng.uniform(0, 1, 3000) < confidence**1.5).astype(int)


@pytest.mark.slow
def test_netcal(golden):
    netcal = pytest.importorskip("netcal.metrics", reason="netcal is an oracle")
    args = (golden.confidence, golden.correct.astype(int))
    assert metrics.ece(*args, n_bins=15) == pytest.approx(netcal.ECE(15).measure(*args), abs=1e-12)
    assert metrics.mce(*args, n_bins=15) == pytest.approx(netcal.MCE(15).measure(*args), abs=1e-12)
    adaptive = netcal.ECE(15, equal_intervals=False).measure(*args)
    assert metrics.ace_top_label(*args, n_bins=15) == pytest.approx(adaptive, abs=1e-12)


def test_uncertainty_calibration(golden, uniform):
    oracle = pytest.importorskip("calibration", reason="uncertainty-calibration is an oracle")
    top = (golden.confidence, golden.correct)
    choices = (golden.probs, golden.labels)
    assert metrics.ece(*top, n_bins=15) == pytest.approx(oracle.get_ece(*choices), abs=1e-12)
    assert metrics.ace_top_label(*top, n_bins=15) == pytest.approx(oracle.get_ece_em(*choices), abs=1e-12)
    squared = oracle.get_calibration_error(*choices, p=2, debias=True, mode="top-label")
    assert metrics.ce_l2_debiased(*top, n_bins=15) == pytest.approx(squared, abs=1e-12)
    for n_bins in (5, 10, 15):
        args = {"num_bins": n_bins, "debias": False}
        assert metrics.ece(*uniform, n_bins=n_bins) == pytest.approx(oracle.get_ece(*uniform, **args), abs=1e-12)
        assert metrics.ace_top_label(*uniform, n_bins=n_bins) == pytest.approx(
            oracle.get_ece_em(*uniform, **args), abs=1e-12
        )


def test_uncertainty_calibration_keeps_ties_together_in_the_squared_error(uniform):
    oracle = pytest.importorskip("calibration", reason="uncertainty-calibration is an oracle")
    confidence, correct = np.round(uniform[0], 1), uniform[1]
    expected = oracle.lower_bound_scaling_ce(confidence, correct, p=2, debias=True, num_bins=15)
    assert metrics.ce_l2_debiased(confidence, correct, n_bins=15) == pytest.approx(expected, abs=1e-12)


def test_uncertainty_calibration_debiased(uniform):
    oracle = pytest.importorskip("calibration", reason="uncertainty-calibration is an oracle")
    np.random.seed(0)  # noqa: NPY002 - the oracle draws from the global generator
    expected = oracle.get_ece(*uniform, debias=True, num_bins=10)
    plug_in = metrics.ece(*uniform)
    assert plug_in - expected > 0.0003
    assert metrics.ece_debiased(*uniform) == pytest.approx(expected, abs=0.0015)


@pytest.mark.slow
def test_torchmetrics(uniform):
    """Float32, so to six digits; its bins are open on the left, which no value here touches."""
    torch = pytest.importorskip("torch", reason="torchmetrics is an oracle")
    functional = pytest.importorskip("torchmetrics.functional", reason="torchmetrics is an oracle")
    confidence, correct = uniform
    probs = torch.tensor(np.column_stack([confidence, (1 - confidence) * 0]))
    target = torch.tensor(1 - correct)
    ours = {"l1": metrics.ece, "l2": metrics.rms_ce, "max": metrics.mce}
    for norm, metric in ours.items():
        expected = functional.classification.multiclass_calibration_error(
            probs, target, num_classes=2, n_bins=15, norm=norm
        )
        assert metric(confidence, correct, n_bins=15) == pytest.approx(expected.item(), abs=2e-6)


def test_scikit_learn(golden, uniform):
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    args = (golden.correct, golden.confidence)
    ours = (golden.confidence, golden.correct)
    assert metrics.auroc(*ours) == pytest.approx(roc_auc_score(*args), abs=1e-12)
    assert metrics.brier_top_label(*ours) == pytest.approx(brier_score_loss(*args), abs=1e-12)
    assert metrics.auprc(*ours) == pytest.approx(average_precision_score(*args), abs=1e-12)
    tied = np.round(uniform[0], 1)
    assert metrics.auroc(tied, uniform[1]) == pytest.approx(roc_auc_score(uniform[1], tied), abs=1e-12)
    nll = log_loss(golden.labels, golden.probs)
    assert metrics.nll(golden.probs, golden.labels) == pytest.approx(nll, abs=1e-12)
    squares = [brier_score_loss(golden.labels == k, golden.probs[:, k]) for k in range(golden.probs.shape[1])]
    assert metrics.brier_score(golden.probs, golden.labels) == pytest.approx(sum(squares), abs=1e-12)


def test_scikit_learn_isotonic(uniform):
    from sklearn.isotonic import IsotonicRegression

    confidence, correct = np.round(uniform[0], 2), uniform[1]
    recalibrated = IsotonicRegression().fit(confidence, correct).predict(confidence)
    parts = metrics.corp_decomposition(confidence, correct)
    expected = metrics.brier_top_label(confidence, correct) - np.mean((recalibrated - correct) ** 2)
    assert parts.miscalibration == pytest.approx(expected, abs=1e-12)


def test_relplot(uniform):
    relplot = pytest.importorskip("relplot", reason="relplot is an oracle")
    confidence, correct = uniform
    binned = relplot.metrics.binnedECE(confidence, correct, nbins=8)
    assert metrics.ece(confidence, correct, n_bins=8) == pytest.approx(binned, abs=1e-12)
    assert metrics.smece(confidence, correct) == relplot.smECE(confidence, correct)
    assert metrics.smece(confidence.tolist(), correct.astype(bool)) == relplot.smECE(confidence, correct)
