"""Which instance has read which conversation, as far as this gateway has sent it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from services.gateway.routing.holdings import Holders
from services.gateway.routing.prefix import Trail

Found: TypeAlias = tuple[str | None, Holders | None, int]
"""Who alone has the longest beginning (None: several or nobody); all who tell that they hold it;
how many of the trail's turns it has."""

MOST_DIGESTS: Final = 65_536
"""Of each of two generations: about 20 MB in all."""
_HALVED_AT: Final = 64
"""Choices of one instance."""


class Homes:
    """The instance of each conversation's longest known beginning, and who was chosen lately.

    Bound: twice `MOST_DIGESTS` digests; what was not used for longest is forgotten first, a
    generation at a time.
    """

    __slots__ = ("_lately", "_most_digests", "_old", "_young")

    def __init__(self, *, most_digests: int = MOST_DIGESTS) -> None:
        self._most_digests = most_digests
        self._young: dict[bytes, str] = {}
        self._old: dict[bytes, str] = {}
        self._lately: dict[str, int] = {}

    def __len__(self) -> int:
        """How many digests are known."""
        return len(self._young) + len(self._old)

    def find(self, trail: Trail, told: Mapping[bytes, Holders]) -> Found:
        """Finds the instance that holds the longest known beginning of a prompt.

        Args:
            trail: of the prompt.
            told: who holds what, by digest, as the neurons tell it.
        """
        young, old = self._young, self._old
        turns = trail.turns
        place = len(turns)
        for digest in reversed(turns):
            home = young.get(digest)
            if home is None and old:
                home = old.get(digest)
            holders = told.get(digest)
            if holders is not None:
                if home is None or home not in holders:
                    # one that was sent it and does not tell of it may have dropped it since
                    home = next(iter(holders)) if len(holders) == 1 else None
                return home, holders, place
            if home is not None:
                return home, None, place
            place -= 1
        return None, None, 0

    def forget(self, digest: bytes, instance_id: str) -> None:
        """Notes that an instance no longer holds this beginning."""
        for generation in (self._young, self._old):
            if generation.get(digest) == instance_id:
                del generation[digest]

    def settle(self, trail: Trail, found: Found, instance_id: str) -> None:
        """The conversation is sent there, where its whole prompt will be read.

        Args:
            trail: of the prompt.
            found: what `find` has said of it.
            instance_id: where it is sent.
        """
        turns, young = trail.turns, self._young
        home, _, known = found
        if home != instance_id:
            known = 0
        if known < len(turns):
            for digest in turns[known:]:
                young[digest] = instance_id
        elif turns:
            young[turns[-1]] = instance_id
        if len(young) >= self._most_digests:
            self._old, self._young = young, {}

    def least_chosen(self, names: Sequence[str], places: Sequence[int]) -> int:
        """Breaks a tie: of equally good instances, the place of the one chosen least of late.

        Counts are halved again and again, so that old ones fade.
        """
        lately = self._lately
        place = min(places, key=lambda place: (lately.get(names[place], 0), names[place]))
        count = lately[names[place]] = lately.get(names[place], 0) + 1
        if count >= _HALVED_AT:
            self._lately = {name: count // 2 for name, count in lately.items() if count > 1}
        return place
