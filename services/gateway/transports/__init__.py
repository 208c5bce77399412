"""Ways of running generations on a neuron, behind one interface."""
