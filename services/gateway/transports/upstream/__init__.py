"""Generations on other servers that speak OpenAI's API, over HTTP."""
