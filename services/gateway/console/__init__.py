"""The console: the fleet as a page for people, and what the page and programs ask and order."""
