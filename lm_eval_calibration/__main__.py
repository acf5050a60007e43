"""``python -m lm_eval_calibration``."""

from lm_eval_calibration.cli import main

main()
