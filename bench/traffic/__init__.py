"""Clients by the official SDKs, with their default retries, that check every word they get."""
