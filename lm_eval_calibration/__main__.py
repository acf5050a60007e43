"""``python -m lm_eval_calibration``."""

from lm_eval_calibration.cli import main

if __name__ == "__main__":  # engines start processes that import this again
    main()
