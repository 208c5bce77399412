"""Model listings: one path, two shapes, chosen by the `anthropic-version` header."""
