"""Worker processes: slots, links, and when one is started again."""
