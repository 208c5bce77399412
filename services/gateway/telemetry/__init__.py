"""Prometheus metrics and the log of requests."""
