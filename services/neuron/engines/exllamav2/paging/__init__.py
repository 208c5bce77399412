"""Pages of the KV cache: to which principal they belong, what they hold, how they are saved."""
