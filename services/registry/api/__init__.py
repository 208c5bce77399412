"""The two gRPC servicers, for neurons and gateways and for operators, and what only they need."""
