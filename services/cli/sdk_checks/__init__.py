"""What `cortex conformance --run` checks with the official Python SDKs."""
