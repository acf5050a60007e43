"""The command ``compare``: runs side by side, with intervals, significance, and who leads where."""
