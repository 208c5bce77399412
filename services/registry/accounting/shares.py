"""How a limit is divided between gateways. Pure: time comes in, changes go out.

The rules:

1. A gateway holds a share of a limit for one window. What it is granted and what it has used only
   grow, unless it gives back itself; so the same claim twice is one. Of the devices' time it says
   nothing as used: what neurons have measured is taken off the limit before it is divided.
2. All shares that are held are together no more than the limit. A share that was not claimed again
   in time is not held any more: of it counts what its gateway last said that it had used. When that
   gateway is back, its claim says the newest figure, which takes the old one's place.
3. What is reserved or used already is granted whatever is left: it cannot be undone. That is the
   only way beyond the limit.
4. A share of another window is another share. Those of windows that ended an hour ago are
   forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

_KEPT_SECONDS: Final = 3600


class ShareKey(NamedTuple):
    """Identifies one limit of one principal in one window; an end of 0: an endless window."""

    principal: str
    meter: int
    period: int
    starts_at: int
    ends_at: int


class Share(msgspec.Struct):
    """One gateway's share of one limit in one window.

    Attributes:
        key: of the limit.
        holder: the gateway's process.
        used: for good.
        granted: in all, with what is used.
        lapses_at: until when it is held, seconds since the epoch.
    """

    key: ShareKey
    holder: str
    used: int
    granted: int
    lapses_at: float

    def charge(self, now: float) -> int:
        """How much of the limit it occupies: what was granted, or once lapsed, what was used."""
        return max(self.granted, self.used) if now < self.lapses_at else self.used


class Claim(NamedTuple):
    """What a gateway has used and wants of a limit; see AllowanceClaim of the contract."""

    key: ShareKey
    limit: int
    used: int
    reserved: int
    wanted: int
    measured: int = 0
    """Used, as others than those who hold shares tell."""


class Grant(NamedTuple):
    """What a gateway may use in all, and how much of the limit nobody holds."""

    granted: int
    left: int


class Shares:
    """The shares that all gateways hold of all limits.

    Args:
        kept: as they were stored.
    """

    def __init__(self, kept: Iterable[Share] = ()) -> None:
        self._by_key: dict[ShareKey, dict[str, Share]] = {}
        for share in kept:
            self._by_key.setdefault(share.key, {})[share.holder] = share

    def claim(
        self, holder: str, claim: Claim, *, now: float, lease_seconds: float
    ) -> tuple[Grant, Share]:
        """Decides a claim; returns the grant, and the share as it is to be stored."""
        shares = self._by_key.setdefault(claim.key, {})
        share = shares.get(holder)
        if share is None:
            share = shares[holder] = Share(claim.key, holder, 0, 0, 0.0)
        share.used = max(share.used, claim.used)
        held = share.used + claim.reserved
        others = sum(one.charge(now) for one in shares.values() if one is not share)
        available = max(0, claim.limit - claim.measured - others)
        share.granted = max(held, min(claim.wanted, available))
        share.lapses_at = now + lease_seconds
        return Grant(share.granted, max(0, available - share.granted)), share

    def forget_ended(self, now: float) -> None:
        """Drops shares of windows that ended long ago, and lapsed shares of endless windows."""
        for key, shares in list(self._by_key.items()):
            if key.ends_at and key.ends_at + _KEPT_SECONDS < now:
                del self._by_key[key]
            elif not key.ends_at:
                for holder, share in list(shares.items()):
                    if share.lapses_at < now and not share.used:
                        del shares[holder]
                if not shares:
                    del self._by_key[key]

    def __len__(self) -> int:
        """Limits of which anything is known."""
        return len(self._by_key)

    def of(self, key: ShareKey) -> Sequence[Share]:
        """All shares of one limit."""
        return list(self._by_key.get(key, {}).values())
