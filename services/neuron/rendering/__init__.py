"""Chat templates, run where they can be ended: in a process beside the daemon."""
