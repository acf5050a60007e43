"""Calibration tuning: a model learns, from its own graded answers, how likely they are right.

Needs the extra ``tuning`` (peft, accelerate). Kapoor et al. 2024, arXiv:2406.08391.
"""
