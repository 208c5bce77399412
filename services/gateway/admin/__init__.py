"""`/admin`: keys and groups of the fleet over HTTP, for holders of an admin key."""
