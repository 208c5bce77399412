"""What the model is told: system prompt, rules files, and what the editor sends along."""
