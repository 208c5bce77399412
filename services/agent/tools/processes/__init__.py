"""Commands as processes: run, watched in the background, and ended for certain."""
