"""The commands of `cortex`, a module each."""
