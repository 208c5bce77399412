"""What waits to be placed: asked of the registry while anybody looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from services.backplane.errors import FleetError
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.console import encode

# A registry that did not answer is asked again only after so long.
_PAUSE_SECONDS: Final = 5.0


class PendingPlacements:
    """The loads and evictions under way or waiting, as the registry has told them last.

    Args:
        operator: asks the registry.
        clock: seconds, monotonic.
    """

    def __init__(
        self, operator: RegistryOperator, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._operator = operator
        self._clock = clock
        self._next_at = 0.0
        self._placements: list[dict[str, Any]] = []
        self._problem = ""

    def told(self) -> dict[str, Any]:
        """What waits, and why that is not known, in a sentence; then it may be out of date."""
        return {"placements": self._placements, "problem": self._problem}

    async def ask(self) -> None:
        """Asks the registry; one that is away is left alone for a while."""
        if self._clock() < self._next_at:
            return
        try:
            fleet = await self._operator.fleet()
        except FleetError as error:
            self._next_at = self._clock() + _PAUSE_SECONDS
            self._problem = error.message
            return
        self._problem = ""
        found = [encode.pending(one) for one in fleet.pending]
        self._placements = sorted(found, key=lambda one: (one["since"] or 0, one["model"]))
