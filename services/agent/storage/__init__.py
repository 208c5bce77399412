"""Saved sessions, their compaction, and the commands that act on them."""
