"""Backends that give log-likelihoods or texts alone: what the harness's own methods return."""
