"""From a conversation to a prompt, and from output text back to what it means."""
