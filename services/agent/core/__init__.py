"""What all of the agent stands on: settings, modes, history, the editor, the workspace."""
