"""Hours of agent-like traffic, and what each process holds in memory meanwhile."""
