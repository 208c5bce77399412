"""The gRPC contract in both directions, calls to neurons, and the fleet as gateways watch it."""
