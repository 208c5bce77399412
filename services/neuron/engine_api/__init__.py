"""What an engine owes the worker that runs it, and the frames between daemon and worker."""
