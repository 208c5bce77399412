"""Lets requests through as far as their principals' limits do.

The rules:

1. A request is let through if every allowance of its principal has room for what it may cost, by
   an estimate; that much is reserved at once in all of them, or in none.
2. At its end, whatever ended it, what it has used takes the place of what was reserved.
3. Where an allowance has no room, more is asked for once, and waited for, before the request is
   refused. So the everyday case is a few additions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from services.gateway.limits.account import Account, Cost, amount
from services.gateway.limits.allowance import Allowance
from services.gateway.limits.device_costs import DeviceCosts
from services.gateway.limits.refusal import refusal
from services.gateway.limits.reservation import Reservation
from services.gateway.limits.settings import KeyLimits

# So many accounts are kept whatever becomes of them; with more, those that are over are forgotten
# whenever their number has doubled.
_FEW: Final = 1024


class Grants(Protocol):
    """Where allowances get more of their limit from: the registry, by way of `ShareLeases`."""

    def opened(self, allowance: Allowance) -> None:
        """Tops a new or changed allowance up with what was leased ahead for it."""
        ...

    def used(self) -> None:
        """Fetches more before it is needed, for allowances that are running low."""
        ...

    async def more(self, allowance: Allowance, needed: int) -> None:
        """Waits until as much as is needed is granted, or it is known that it is not.

        Raises:
            FleetError: REGISTRY_UNAVAILABLE: nobody can tell.
        """
        ...


class Limiter:
    """Holds requests to the limits of their principals: reserves before they run.

    Args:
        limits_of: the limits of a principal; None: it has none. The same object as long as they
            are the same.
        grants: where allowances get what they may give out.
        clock: seconds since the epoch.

    Attributes:
        device_costs: what requests are likely to take of the devices.
    """

    def __init__(
        self,
        limits_of: Callable[[str], KeyLimits | None],
        grants: Grants,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits_of = limits_of
        self._grants = grants
        self._clock = clock
        self.device_costs = DeviceCosts()
        self._accounts: dict[str, Account] = {}
        self._sweep_at = _FEW

    def __len__(self) -> int:
        """Accounts that are kept."""
        return len(self._accounts)

    def account(self, principal: str) -> Account | None:
        """The account of a principal as it stands now; None where it has no limits."""
        limits = self._limits_of(principal)
        if limits is None:
            return None
        account = self._accounts.get(principal)
        now = self._clock()
        if account is None:
            account = self._open(principal, limits, now)
        elif account.limits is not limits:
            account.follow(limits, now)
        elif now >= account.turns_at:
            account.turn(now)
        return account

    def reserve(self, account: Account, cost: Cost) -> Reservation | None:
        """Reserves what a request may cost; None where there is no room: see `wait`.

        By meter, and in one go, because every request comes here.
        """
        is_low = False
        on_requests, on_tokens, on_streams, on_devices = account.open
        count = cost.requests
        for one in on_requests:
            one.reserved += count
            if one.granted - one.used - one.reserved < one.low:
                is_low = True
        count, unstated = cost.tokens, cost.unstated_tokens
        for one in on_tokens:
            one.reserved += (count + min(unstated, one.unstated_most)) if unstated else count
            if one.granted - one.used - one.reserved < one.low:
                is_low = True
        count = cost.streams
        for one in on_streams:
            one.reserved += count
            if one.granted - one.used - one.reserved < one.low:
                is_low = True
        count = cost.device_milliseconds
        for one in on_devices:
            one.reserved += min(count, one.unstated_most)
            if one.granted - one.used - one.reserved < one.low:
                is_low = True
        reservation = Reservation(account.open, cost)
        if is_low and not self._has_room(account):
            reservation.undo()
            return None
        return reservation

    async def wait(self, account: Account, cost: Cost) -> Reservation:
        """Reserves a request's cost, waiting for the registry to grant more where that is needed.

        Raises:
            FleetError: RATE_LIMITED or QUOTA_EXHAUSTED: a limit does not let it through;
                REGISTRY_UNAVAILABLE: nobody can tell.
        """
        asked: set[Allowance] = set()
        while (reservation := self.reserve(account, cost)) is None:
            short = next(one for one in account.allowances if one.room < amount(one, cost))
            needed = amount(short, cost)
            if short in asked or needed > short.limit:
                raise refusal(short, needed, self._clock())
            asked.add(short)
            await self._grants.more(short, needed)
            if self._clock() >= account.turns_at:
                account.turn(self._clock())
        return reservation

    def _has_room(self, account: Account) -> bool:
        """Whether what was reserved is there; then more is asked for beside the request."""
        if any(one.room < 0 for one in account.allowances):
            return False
        self._grants.used()
        return True

    def _open(self, principal: str, limits: KeyLimits, now: float) -> Account:
        if len(self._accounts) >= self._sweep_at:
            self._accounts = {
                name: one for name, one in self._accounts.items() if not one.is_over(now)
            }
            self._sweep_at = max(_FEW, 2 * len(self._accounts))
        account = Account(principal, limits, self._grants.opened, now)
        self._accounts[principal] = account
        return account
