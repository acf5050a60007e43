"""Servers: completions and chat endpoints that speak OpenAI's protocol."""
