"""The settings files seen from outside: their schemas, their page, what is in force, new ones."""
