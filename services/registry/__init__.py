"""The registry: who is in the fleet, what it holds, and where a model goes."""
