"""Every way in which a model says how sure it is, side by side: its probabilities, scaled, asked for, in words."""
