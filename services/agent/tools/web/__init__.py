"""Pages of the web: which may be asked for, and their text."""
