"""Which certificates are refused, and who waits to hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.security.credentials import FleetCredentials

# How often the file of revoked certificates is asked for, which others may write.
_LOOK_SECONDS: Final = 0.5


class Revocations:
    """All certificates that are refused: those of the file, and those that operators have revoked.

    Args:
        credentials: the registry's own, which refuse the same; None: nobody is asked who he is.
        on_change: called whenever there are others.

    Attributes:
        changes: moves on whenever there are others.
    """

    def __init__(self, credentials: FleetCredentials | None, on_change: Callable[[], None]) -> None:
        self._credentials = credentials
        self._on_change = on_change
        self._told: frozenset[str] = frozenset()
        self.changes = Changes()

    @property
    def are_kept(self) -> bool:
        """False where nobody has a certificate."""
        return self._credentials is not None

    @property
    def serials(self) -> tuple[str, ...]:
        """Serial numbers in hex, in order."""
        return tuple(sorted(self._credentials.revoked)) if self._credentials else ()

    def refuse(self, serials: frozenset[str]) -> None:
        """Refuses these, whatever the file says, in place of those that were named before."""
        if self._credentials is not None:
            self._credentials.refuse(serials)
            self._compare()

    def require(self, serial: str) -> None:
        """Checks a certificate.

        Raises:
            FleetError: FORBIDDEN: it was revoked.
        """
        if self._credentials is not None and serial in self._credentials.revoked:
            raise FleetError(Reason.FORBIDDEN, "This certificate was revoked.")

    async def until_revoked(self, serial: str) -> None:
        """Waits until a certificate is revoked, and raises as `require` does."""
        while True:
            version = self.changes.version
            self.require(serial)
            await self.changes.after(version)

    async def watch(self) -> None:
        """Takes in for ever what others write into the file."""
        while True:
            self._compare()
            await asyncio.sleep(_LOOK_SECONDS)

    def _compare(self) -> None:
        now = self._credentials.revoked if self._credentials else frozenset[str]()
        if now != self._told:
            self._told = now
            self.changes.bump()
            self._on_change()
