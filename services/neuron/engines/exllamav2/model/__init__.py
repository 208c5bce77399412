"""A model in GPU memory: sizes, loading, adapters, pictures, the batch."""
