"""This neuron in its fleet: attachment, reports, and which leader is obeyed."""
