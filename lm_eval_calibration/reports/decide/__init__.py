"""``lm-eval-calibration decide``: when may the model answer alone?"""
