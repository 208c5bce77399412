"""Stored responses, and which process owns one that is still running."""
