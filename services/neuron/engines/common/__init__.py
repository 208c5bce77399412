"""What every token-level engine needs and none owns: text, stops, constraints, the queue.

Nothing here imports an engine or does I/O.
"""
