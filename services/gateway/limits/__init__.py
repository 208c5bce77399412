"""How much each principal may ask for, held to in this process by counters alone."""
