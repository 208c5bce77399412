"""A model in memory: headers, sizes, loading, vocabulary."""
