"""One turn: asking the model, running its tools, asking again."""
