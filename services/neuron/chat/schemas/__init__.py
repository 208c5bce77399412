"""JSON Schemas of tools: what a client sent, what it means, what of it can be enforced."""
