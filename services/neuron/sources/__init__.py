"""Where weights come from: a path, an installed package, a hub; checks, and room on the disk."""
