"""Loaded instances and their life: fit, assign, load, adopt, recover, unload, reclaim."""
