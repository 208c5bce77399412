"""gRPC as every service speaks it: servers, channels, calls, and errors as statuses."""
