"""Inference engines that the harness runs in its own process: vLLM and SGLang."""
