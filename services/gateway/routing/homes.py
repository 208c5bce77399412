"""Which instance has read which conversation, as far as this gateway has sent it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.gateway.routing.prefix import Trail

MOST_DIGESTS: Final = 65_536
"""Of each of two generations: about 20 MB in all."""
_HALVED_AFTER: Final = 256


class Homes:
    """The instance of each conversation's longest known beginning, and who was chosen lately.

    Bound: twice `MOST_DIGESTS` digests; what was not used for longest is forgotten first, a
    generation at a time.
    """

    def __init__(self, *, most_digests: int = MOST_DIGESTS) -> None:
        self._most_digests = most_digests
        self._young: dict[bytes, str] = {}
        self._old: dict[bytes, str] = {}
        self._lately: dict[str, float] = {}
        self._choices = 0

    def __len__(self) -> int:
        """How many digests are known."""
        return len(self._young) + len(self._old)

    @property
    def lately(self) -> Mapping[str, float]:
        """How often each instance was chosen, of late more than long ago."""
        return self._lately

    def home(self, trail: Trail) -> str | None:
        """The instance that was last sent the longest beginning that is known; None: none is."""
        young, old = self._young, self._old
        for digest in reversed(trail):
            found = young.get(digest) or old.get(digest)
            if found is not None:
                return found
        return None

    def settle(self, trail: Trail, instance_id: str) -> None:
        """The conversation is sent there, where its whole prompt will be read."""
        young = self._young
        for digest in reversed(trail):
            if young.get(digest) == instance_id:
                break  # and so are all shorter ones, or they belong to a branch of it
            young[digest] = instance_id
        if len(young) >= self._most_digests:
            self._old, self._young = young, {}

    def count(self, instance_id: str) -> None:
        """Counts a choice; the counts are halved again and again, so that old ones fade."""
        lately = self._lately
        lately[instance_id] = lately.get(instance_id, 0.0) + 1.0
        self._choices += 1
        if self._choices % _HALVED_AFTER == 0:
            self._lately = {name: n / 2 for name, n in lately.items() if n > 1 / 16}
