"""Facts that survive a restart, and the lease of the leader: SQLite or PostgreSQL."""
