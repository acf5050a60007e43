"""The command ``evidence``: a dated, hashed statement of what was measured of one model. Facts, no judgement."""
