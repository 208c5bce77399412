"""How much of the prompts is read once only: the gateway's choice among simulated instances."""
