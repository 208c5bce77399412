"""Settings of a host: `cortex init` and `cortex config`."""
