"""How much a model answers by how many wrong answers are allowed, in words."""

from lm_eval_calibration.decisions import GuaranteeCurve


def describe_decision(curve: GuaranteeCurve, error_rate: float) -> str:
    """Return what the figure shows in words, for screen readers."""
    at = curve.error_rate.index(error_rate)
    return (
        f"With at most {error_rate:.3g} of its answers wrong it answers {curve.guaranteed[at]:.1%} of the questions "
        f"with a guarantee; {curve.possible[at]:.1%} would have been possible"
    )
