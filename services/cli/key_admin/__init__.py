"""What `cortex keys` needs besides its commands."""
