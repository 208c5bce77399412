"""The windows in which limits count: minutes, days and months of UTC, the same on every host."""

from __future__ import annotations

import datetime as dt
import enum
import math
from typing import NamedTuple

_MINUTE = 60
_DAY = 86_400


class Period(enum.Enum):
    """How long a window is."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    ALWAYS = "always"
    """One window that never ends: what is held at one time."""


class Window(NamedTuple):
    """One window, from its beginning until before its end, seconds since the epoch."""

    starts_at: int
    ends_at: float


def window_at(period: Period, now: float) -> Window:
    """The window of this length in which an instant lies, seconds since the epoch."""
    if period is Period.ALWAYS:
        return Window(0, math.inf)
    if period is Period.MONTH:
        day = dt.datetime.fromtimestamp(now, dt.UTC)
        first = day.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        after = (first + dt.timedelta(days=32)).replace(day=1)
        return Window(int(first.timestamp()), after.timestamp())
    length = _MINUTE if period is Period.MINUTE else _DAY
    start = int(now) // length * length
    return Window(start, float(start + length))
