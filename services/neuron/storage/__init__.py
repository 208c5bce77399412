"""Models on this neuron's disk: fetched before they are loaded, passed on, removed."""
