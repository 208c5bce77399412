"""Traces: spans of a request in every service, joined by W3C trace contexts."""
