"""This neuron in its fleet: attachment and reports."""
