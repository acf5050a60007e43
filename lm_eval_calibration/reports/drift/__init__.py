"""The command ``drift``: has a model's calibration become worse than is tolerated, against a base run?"""
