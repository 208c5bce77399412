"""The tools that run a shell command, and that follow and end those in the background."""
