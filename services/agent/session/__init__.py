"""One session: its state, its MCP servers, its replay to an editor."""
