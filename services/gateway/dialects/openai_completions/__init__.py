"""OpenAI legacy completions."""
