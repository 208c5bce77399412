"""Who waits for a model, and how a decision is carried out: queue, executor, loads, unloads.

A state machine without I/O: what is to be done leaves it as orders.
"""
