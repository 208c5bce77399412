"""What our loop around ExLlamaV2 costs beside the library's own."""
