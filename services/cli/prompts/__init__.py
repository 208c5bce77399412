"""What a fleet has read of a prompt."""
