"""Chat templates and clients' constraints, run where they can be ended: beside the daemon."""
