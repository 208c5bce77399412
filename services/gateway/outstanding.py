"""How many requests this gateway has running on each instance."""

from __future__ import annotations


class Outstanding(dict[str, int]):
    """Instance id to running requests; an instance without any is absent."""

    def take(self, instance_id: str) -> None:
        """One more runs there."""
        self[instance_id] = self.get(instance_id, 0) + 1

    def give_back(self, instance_id: str) -> None:
        """One of them has ended."""
        left = self[instance_id] - 1
        if left:
            self[instance_id] = left
        else:
            del self[instance_id]
