"""The life of a process: its start and end, SIGHUP, its watchdog, and what nobody foresaw."""
