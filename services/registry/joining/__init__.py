"""Hosts that join: tokens, the certificates given for them, and those that are refused."""
