"""A model's folder: its configuration in every spelling, and its weights."""
