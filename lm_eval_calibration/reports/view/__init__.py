"""``lm-eval-calibration view``: reports of all runs in a folder, made when they are opened, served on this machine."""
