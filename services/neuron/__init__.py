"""The neuron: one daemon per host, one worker process per device set."""
