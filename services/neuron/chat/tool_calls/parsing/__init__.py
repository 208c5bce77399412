"""The character readers that the formats of tool calls share."""
