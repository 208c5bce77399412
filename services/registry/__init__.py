"""The registry: who is in the fleet, what each member holds, and where a model should go."""
