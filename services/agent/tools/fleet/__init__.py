"""The fleet itself: what a gateway tells operators of it, and what they may order."""
