"""The drift gate on a few simulated runs; ``drift_gate.py`` does many."""

from simulations.drift_gate import TOLERANCE, alarms


def test_no_alarm_where_nothing_changed_or_just_the_tolerance() -> None:
    assert alarms(400, 0.0, True, 4).any_alarm == 0
    assert alarms(400, TOLERANCE, False, 4).ece == 0


def test_an_alarm_where_much_changed() -> None:
    rates = alarms(1500, 0.2, True, 3)
    assert rates.any_alarm == rates.ece == 1
