"""How much of an answer whoever reads it has room for."""

from __future__ import annotations

import asyncio


class CreditWindow:
    """Tokens that may still be read ahead of the reader; read in one task, granted from others.

    Args:
        tokens: to begin with.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._more = asyncio.Event()

    @property
    def is_spent(self) -> bool:
        """True where nothing more is to be read for now."""
        return self._tokens <= 0

    def spend(self, tokens: int) -> None:
        """Counts what was read; one event may take it below zero."""
        self._tokens -= tokens

    def grant(self, tokens: int) -> None:
        """The reader has taken so many."""
        self._tokens += tokens
        self._more.set()

    async def available(self) -> None:
        """Waits until there is some."""
        while self.is_spent:
            self._more.clear()
            await self._more.wait()
