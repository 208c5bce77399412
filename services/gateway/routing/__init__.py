"""Which instance serves a request, and what happens if it cannot: choice, retries, placement."""
