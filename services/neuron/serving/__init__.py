"""Requests: prompt, generation, delivery, sessions, counting and embedding."""
