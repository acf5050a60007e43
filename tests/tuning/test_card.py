"""What the card and the command say of a run's validations."""

from lm_eval_calibration.tuning.card import no_gain, rows


def found(epoch: float, nll: float, drift: float = 0.0) -> dict[str, float]:
    return {"epoch": epoch, "auroc": 0.5, "ece": 0.1, "nll": nll, "accuracy_drift": drift}


def test_a_run_that_gained_nothing_says_so() -> None:
    assert no_gain([found(0, 0.67), found(1, 0.71)]).startswith("No gain: on the held-out docs")
    assert "0.7100 after and 0.6700 before" in no_gain([found(0, 0.67), found(1, 0.71)])
    assert no_gain([found(0, 0.67), found(1, 0.71), found(2, 0.66)]) == ""


def test_validations_are_rows_of_four_digits() -> None:
    assert rows([found(0, 0.67), found(1, 0.71, -0.0)]) == [
        ["untuned", "0.5000", "0.1000", "0.6700", "+0.0000"],
        ["1.00", "0.5000", "0.1000", "0.7100", "+0.0000"],
    ]
