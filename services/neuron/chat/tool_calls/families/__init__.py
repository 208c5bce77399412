"""The formats of tool calls: one module per family of models."""
