"""Model endpoints: one protocol, one event type, a module for each dialect."""
