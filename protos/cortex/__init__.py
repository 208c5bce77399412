"""The generated contract between the services of a Cortex fleet."""
