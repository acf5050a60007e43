"""The part of a report where people look at single questions: its data, its markup and its script."""
