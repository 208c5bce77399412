"""What a bystander notices of one client that attacks: its longest silence, side by side."""
