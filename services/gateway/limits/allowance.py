"""What this process may give out of one limit within one window, and what it has given."""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from services.gateway.limits.windows import Period, Window

# Of a limit, at most so much is reserved for answers whose length nobody has stated.
_UNSTATED_SHARE: Final = 4

LINGER_SECONDS: Final = 6.0
"""So long after the end of a request it is certain that what neurons have measured of it is taken
into account: half a second at a worker, two until the neuron reports, one until that is written,
and one until the next claim."""


class Meter(enum.Enum):
    """What a limit counts: requests, tokens, running generations, or milliseconds of devices."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    STREAMS = "streams"
    """Generations that run at once."""
    GPU_MILLISECONDS = "gpu_milliseconds"
    """Time of devices: neurons measure it, so `used` of its allowances stays 0."""


class Allowance:
    """One limit of one principal in one window, as far as this process may use it.

    `granted` is what it may use in all; `used` and `reserved` together stay below it, but where an
    estimate was too low or the registry is away. Only the event loop touches it.

    Attributes:
        principal: whose.
        meter: what is counted.
        period: how long the window is.
        window: which one it is.
        limit: of all processes together.
        granted: what this process may use of it in this window.
        used: what it has used, for good.
        reserved: what runs may still use.
        left_elsewhere: of the limit, neither granted to this process nor to others, when it was
            last known.
        unstated_most: the most that is reserved of it for answers of which no length is stated;
            stays, whatever becomes of the limit.
        low: where less room is left, more is asked for.
        is_stirred: a request has reserved of it since the leases were last renewed.
        ended: of what is reserved, what requests have used that have ended lately.
        lingering: of what is reserved, what others have used before, each with the time until when
            it stays: neurons have told it by then.
    """

    __slots__ = (
        "ended",
        "granted",
        "left_elsewhere",
        "limit",
        "lingering",
        "low",
        "meter",
        "period",
        "principal",
        "reserved",
        "unstated_most",
        "used",
        "was_reserved",
        "window",
    )

    def __init__(
        self, principal: str, meter: Meter, period: Period, *, window: Window, limit: int
    ) -> None:
        self.principal = principal
        self.meter = meter
        self.period = period
        self.window = window
        self.limit = limit
        self.unstated_most = max(1, limit // _UNSTATED_SHARE)
        self.granted = 0
        self.used = 0
        self.reserved = 0
        self.left_elsewhere = 0
        self.low = 0
        self.was_reserved = False
        self.ended = 0
        self.lingering: deque[tuple[float, int]] = deque()

    def release(self, now: float) -> None:
        """Drops reservations for requests whose device time the neurons have reported by now."""
        if self.ended:
            self.lingering.append((now + LINGER_SECONDS, self.ended))
            self.ended = 0
        while self.lingering and self.lingering[0][0] <= now:
            self.reserved -= self.lingering.popleft()[1]

    @property
    def room(self) -> int:
        """How much may still be reserved; negative if more was used than was granted."""
        return self.granted - self.used - self.reserved

    @property
    def left(self) -> int:
        """What is left of the limit, as far as this process knows."""
        return max(0, self.room + self.left_elsewhere)
