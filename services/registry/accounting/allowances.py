"""Grants shares of limits to gateways, durably: what is granted is stored before it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from services.registry.accounting.shares import Claim, Grant, Share, ShareKey, Shares
from services.registry.store.ledger import Ledger, ShareRow

LEASE_SECONDS: Final = 10.0
"""How long a gateway that is not heard of keeps what it was granted."""

_SWEEP_SECONDS: Final = 300.0


class Allowances:
    """Answers gateways' claims on limits, and stores the shares before it answers.

    Args:
        ledger: where shares are stored.
        clock: seconds since the epoch.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._clock = clock
        self._shares: Shares | None = None
        self._loading = asyncio.Lock()
        self._swept_at = 0.0

    async def claim(self, holder: str, claims: Sequence[Claim]) -> list[Grant]:
        """Grants what it can of one gateway's claims; the grants in the order of the claims.

        Raises:
            StoreError: they could not be stored.
        """
        shares = await self._loaded()
        now = self._clock()
        grants: list[Grant] = []
        changed: list[ShareRow] = []
        for claim in claims:
            grant, share = shares.claim(holder, claim, now=now, lease_seconds=LEASE_SECONDS)
            grants.append(grant)
            changed.append(_row(share))
        over = None
        if now - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = now
            shares.forget_ended(now)
            over = int(now) - 3600
        if changed:
            await self._ledger.save_shares(changed, ended_before=over)
        return grants

    async def _loaded(self) -> Shares:
        if self._shares is None:
            async with self._loading:
                if self._shares is None:
                    rows = await self._ledger.load_shares()
                    self._shares = Shares(_share(row) for row in rows)
        return self._shares


def _row(share: Share) -> ShareRow:
    return ShareRow(*share.key, share.holder, share.used, share.granted, share.lapses_at)


def _share(row: ShareRow) -> Share:
    key = ShareKey(row.principal, row.meter, row.period, row.starts_at, row.ends_at)
    return Share(key, row.holder, row.used, row.granted, row.lapses_at)
