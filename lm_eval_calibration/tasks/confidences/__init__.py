"""The ways in which a model states its confidence, one file each."""
