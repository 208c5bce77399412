"""All sessions: opening, prompting, listing, closing."""
