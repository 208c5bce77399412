"""What runs, as it runs: `cortex logs`, `events` and `top`."""
