"""Who asks, and what for: keys of the settings, keys of the store, tokens of an issuer."""
