"""The ExLlamaV2 library itself: finding, building and adapting it, and what its errors mean."""
