"""One answer on its way: a choice, the stream, the collected answer, signs of life."""
