"""Anthropic messages, with token counting."""
