"""``lm-eval-calibration report``: a run's calibration for a decision-maker and for a researcher, in one file."""
