"""How much time of devices each neuron may tell of: no more than its devices can have worked.

What a neuron says it has measured is charged to principals, and nobody else can measure it. But the
registry has a clock of its own, and hears of every neuron every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_AT_ONCE: Final = 2
"""On one device a model computes while another is loaded; both take time."""
_SLACK_SECONDS: Final = 60.0
"""Of each device, at the beginning: nobody knows how long a new neuron has worked before."""
_KEPT_SECONDS: Final = 3600.0
"""Of each device, what may be told later than it was: a load is told when it is over."""
_MOST_DEVICES: Final = 64
_MOST_NEURONS: Final = 10_000
_MICROSECONDS: Final = 1_000_000


class _Bound:
    __slots__ = ("devices", "heard_at", "is_clamped", "left")

    def __init__(self, heard_at: float) -> None:
        self.devices = 1
        self.heard_at = heard_at
        self.left = 0
        """Microseconds that may still be told."""
        self.is_clamped = False

    def add(self, seconds: float) -> None:
        """Its devices may have worked for so long."""
        self.left += int(seconds * self.devices * _AT_ONCE * _MICROSECONDS)


class DeviceBounds:
    """Follows every neuron by name, so that a new life of one begins with what the last has left.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bounds: dict[str, _Bound] = {}

    def heard(self, name: str, devices: int) -> None:
        """A neuron has reported.

        Args:
            name: of the neuron.
            devices: that it says it has.
        """
        now = self._clock()
        bound = self._bounds.get(name)
        is_new = bound is None
        if bound is None:
            if len(self._bounds) >= _MOST_NEURONS:
                # the one that was heard the longest ago
                del self._bounds[min(self._bounds, key=lambda one: self._bounds[one].heard_at)]
            bound = self._bounds[name] = _Bound(now)
        bound.devices = min(max(devices, 1), _MOST_DEVICES)
        if is_new:
            bound.add(_SLACK_SECONDS)
            return
        kept = int(_KEPT_SECONDS * bound.devices * _MICROSECONDS)
        bound.left = min(bound.left, kept)
        bound.add(now - bound.heard_at)
        bound.heard_at = now

    def was_away(self, name: str, seconds: float) -> None:
        """Before it was heard the first time, it had told nothing for so long: it may do so now."""
        bound = self._bounds.get(name)
        if bound is not None:  # else more neurons than are followed have come since
            bound.add(seconds)

    def left(self, name: str) -> int:
        """Microseconds of devices that a neuron may still tell of."""
        bound = self._bounds.get(name)
        return 0 if bound is None else bound.left

    def told(self, name: str, microseconds: int) -> bool:
        """So much of it was believed; True the first time that nothing is left for more."""
        bound = self._bounds.get(name)
        if bound is None:
            return False
        bound.left -= microseconds
        is_first = bound.left <= 0 and not bound.is_clamped
        bound.is_clamped |= is_first
        return is_first
