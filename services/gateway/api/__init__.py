"""HTTP around every request: endpoints, heads, keys, CORS, errors, health, access log."""
