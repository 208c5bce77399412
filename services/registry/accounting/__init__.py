"""How much principals may still use, shared between gateways, and what they have used."""
