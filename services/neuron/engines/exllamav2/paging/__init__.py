"""The pages of the cache: whose they are, what they hold, and copies of them that last."""
