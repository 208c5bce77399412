"""The batch: requests in, slots, prefill and decode steps, sampling."""
