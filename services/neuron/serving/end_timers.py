"""The clocks that may end a generation: its deadline, and standing still for too long."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from services.backplane.errors import FleetError, Reason


@dataclasses.dataclass(frozen=True, slots=True)
class StallLimits:
    """How long a generation may stand still before it fails.

    Attributes:
        slow_reader_seconds: seconds without credit from the reader before SLOW_READER.
        recovery_seconds: seconds without a worker before WORKER_LOST.
    """

    slow_reader_seconds: float
    recovery_seconds: float


class EndTimers:
    """Ends a generation when one of its two clocks runs out.

    Args:
        fail: ends the generation with an error.
    """

    def __init__(self, fail: Callable[[FleetError], None]) -> None:
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    @property
    def is_standing_still(self) -> bool:
        """True while the clock of a generation that stands still runs."""
        return self._stall is not None

    def set_deadline(self, seconds: float) -> None:
        """Ends the generation with DEADLINE after so many seconds, whatever it does."""
        late = FleetError(Reason.DEADLINE, "The request's deadline has passed.")
        self._deadline = self._loop.call_later(seconds, self._fail, late)

    def stands_still(self, seconds: float, error: FleetError) -> None:
        """Ends the generation with `error` after so many seconds, unless it goes on before."""
        self.goes_on()
        self._stall = self._loop.call_later(seconds, self._fail, error)

    def goes_on(self) -> None:
        """Stops the clock of a generation that stands still."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def stop(self) -> None:
        """Stops both clocks: the generation is over."""
        self.goes_on()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
