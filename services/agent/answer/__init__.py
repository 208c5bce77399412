"""Reading what the model says: text, reasoning, tool calls in and out of band."""
