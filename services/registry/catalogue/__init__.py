"""What may be asked for: `models.toml` as frozen profiles, read again while the registry runs."""
