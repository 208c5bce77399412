"""What the engines' samplers have in common: the ban by bias, and chance that can be resumed."""

from __future__ import annotations

import hashlib
from typing import Final

BANNED_AT: Final = -100.0
"""A logit bias at or below this bans the token (OpenAI's API reference)."""


class PositionalBits:
    """Random numbers that depend on the seed and the position in the output alone.

    A request that is resumed behind n tokens, in this process or another, draws what it would have
    drawn unbroken.
    """

    def __init__(self, seed: int, *, position: int, size: int) -> None:
        """Starts at a position.

        Args:
            seed: of the request; any integer.
            position: how many numbers were drawn before.
            size: bytes of a number, 1 to 64.
        """
        key = (seed & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
        self._keyed = hashlib.blake2b(digest_size=size, key=key)
        self._position = position

    def draw(self) -> int:
        """The next number, from 0 to 256 ** size - 1, all equally likely."""
        at_position = self._keyed.copy()
        at_position.update(self._position.to_bytes(8, "little"))
        self._position += 1
        return int.from_bytes(at_position.digest(), "little")
