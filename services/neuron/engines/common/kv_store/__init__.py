"""Caches of sequences that outlive their model: files in the host's memory and on disk."""
