"""The fleet's own credentials: who a peer is, and what it may call."""
