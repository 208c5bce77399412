"""Commands: run, watched in the background, and ended for certain."""
