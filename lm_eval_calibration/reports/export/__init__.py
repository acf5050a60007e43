"""The command ``export``: a run's metrics in the forms that others read. No text of docs, prompts or answers."""
