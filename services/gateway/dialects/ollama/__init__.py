"""The Ollama API: chat and generate as lines of JSON, embeddings, listings."""
