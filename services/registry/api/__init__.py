"""The gRPC servicers, one for each kind of caller, and what only they need."""
