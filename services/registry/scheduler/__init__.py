"""Which neuron gets a model, and what makes way for it: filter, evaluate, select, evict.

Pure functions over a cached, indexed view of the fleet; the split of cache, filter and score is the
Kubernetes scheduler's.
"""
