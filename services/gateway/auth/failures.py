"""Addresses that have sent wrong keys: each may try a few, and then one now and then.

Keys of the store cannot be guessed (190 bits), so they are looked up from everywhere. Keys of the
settings are what somebody has chosen. From an address that has sent too many wrong ones, only those
are looked up that were right from there before: whoever guesses behind a proxy keeps nobody out who
comes through it too and was let in before.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from typing import Final

from services.backplane.errors import FleetError, Reason

_AT_ONCE: Final = 10.0
_PER_SECOND: Final = 0.5
# Beyond, those that were seen longest ago are forgotten.
_MOST_ADDRESSES: Final = 4096
_MOST_GOOD: Final = 16_384


class FailedKeys:
    """Limits guesses: counts wrong keys by address, as a token bucket that refills with time.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._good: dict[tuple[str, bytes], None] = {}

    def check(self, address: str, digest: bytes) -> None:
        """Allows one attempt with a key that can be guessed (one of the settings).

        Raises:
            FleetError: RATE_LIMITED: too many wrong ones came from there.
        """
        if not self._buckets or (address, digest) in self._good:
            return
        left, _ = self._left(_network(address))
        if left < 1.0:
            raise FleetError(
                Reason.RATE_LIMITED,
                "Too many wrong API keys were sent from this address.",
                retry_after_seconds=math.ceil((1.0 - left) / _PER_SECOND),
            )

    def was_right(self, address: str, digest: bytes) -> None:
        """Remembers that this key was right from this address: `check` lets it through."""
        one = (address, digest)
        if one not in self._good:
            self._good[one] = None
            if len(self._good) > _MOST_GOOD:
                del self._good[next(iter(self._good))]

    def was_wrong(self, address: str) -> None:
        """Counts a wrong key against its address."""
        network = _network(address)
        left, now = self._left(network)
        self._buckets.pop(network, None)
        self._buckets[network] = (max(0.0, left - 1.0), now)
        if len(self._buckets) > _MOST_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]

    def _left(self, network: str) -> tuple[float, float]:
        """Attempts that are left, and now."""
        now = self._clock()
        left, at = self._buckets.get(network, (_AT_ONCE, now))
        return min(_AT_ONCE, left + (now - at) * _PER_SECOND), now


def _network(address: str) -> str:
    """Who has one address of version 6 has all of its network."""
    if ":" not in address:
        return address
    try:
        whole = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(ipaddress.IPv6Network((whole, 64), strict=False))
