"""One package per dialect, each with the same four files: routes, decode, encode, stream."""
