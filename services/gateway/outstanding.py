"""How many requests this gateway has running on each instance."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


class Outstanding(dict[str, int]):
    """Instance id to running requests; an instance without any is absent."""

    @contextlib.contextmanager
    def held(self, instance_id: str) -> Generator[None]:
        """Counts one request while the context is open."""
        self[instance_id] = self.get(instance_id, 0) + 1
        try:
            yield
        finally:
            left = self[instance_id] - 1
            if left:
                self[instance_id] = left
            else:
                del self[instance_id]
