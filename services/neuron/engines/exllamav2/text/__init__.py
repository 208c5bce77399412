"""The tokenizer and the vocabulary."""
