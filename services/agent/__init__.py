"""The agent: the Agent Client Protocol in front of any chat endpoint."""
