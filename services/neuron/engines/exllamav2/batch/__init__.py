"""The batch: requests in, steps, sampling, streams of text out."""
