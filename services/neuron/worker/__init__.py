"""The worker: one process that owns its devices and runs one engine loop.

`python -m services.neuron.worker --engine NAME --fd N` speaks the frames of
`engine_api/frames.py` over the socket N.
"""
