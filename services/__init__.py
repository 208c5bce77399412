"""Cortex: one address for all your GPUs."""

__version__ = "0.1.0"
