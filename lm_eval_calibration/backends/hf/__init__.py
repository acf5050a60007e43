"""Hugging Face models, scored on their device."""
