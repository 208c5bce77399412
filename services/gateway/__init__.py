"""The gateway: OpenAI, Anthropic and Ollama HTTP in, canonical generation over gRPC out."""
