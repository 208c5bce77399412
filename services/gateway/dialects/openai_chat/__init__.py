"""OpenAI chat completions, with the fields that local servers add."""
