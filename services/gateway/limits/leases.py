"""Shares of limits, leased from the registry, so that all gateways together hold to a limit.

The rules:

1. Beside what is used and reserved, a gateway keeps a slice at hand: a sixteenth of the limit, and
   nothing once it has been idle. So requests only count; the registry is asked beside them.
2. A request that finds too little waits until the registry was asked, for two seconds at most.
3. What was leased lapses here before it does at the registry. What is used is told as a sum for the
   window, which is the same however often it is told.
4. While the registry is away, and for `limits_away_seconds` since it was last heard of, minutes and
   generations at one time are held to by each gateway for itself, and of each budget one slice may
   be used besides what was leased. Then requests that have limits are refused.
5. The next minute's share is asked for before it begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from typing_extensions import override

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.gateway.limits.allowance import Allowance, Meter
from services.gateway.limits.limiter import Grants
from services.gateway.limits.shares import HeldShare, ShareKey, claim_of, key_of, slice_of
from services.gateway.limits.windows import Period, window_at

_RENEW_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 3.0
_WAIT_SECONDS: Final = 2.0
_AHEAD_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 0.1
# Of a window that is over, what was reserved in it may still be settled.
_OVER_SECONDS: Final = 3600.0
# What nobody uses and nothing is held of is no longer looked at.
_UNHELD_SECONDS: Final = 60.0
_MOST_CLAIMS: Final = 1000
log = structlog.get_logger()


class Lessor(Protocol):
    """Where shares are leased: the registry that leads."""

    async def lease(self, request: pb.LeaseAllowancesRequest) -> pb.LeaseAllowancesResponse:
        """Claims shares.

        Raises:
            FleetError: they were not granted; REGISTRY_UNAVAILABLE where nobody answers.
        """
        ...


class ShareLeases(Grants):
    """Leases shares of limits from the registry, renews them, and returns them at the end.

    Args:
        lessor: where they are leased.
        holder: names this process; new at every start.
        away_seconds: how long limits are held to without the registry.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        lessor: Lessor,
        *,
        holder: str,
        away_seconds: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lessor = lessor
        self._holder = holder
        self._away_seconds = away_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._held: dict[ShareKey, HeldShare] = {}
        self._ahead: dict[ShareKey, Allowance] = {}
        self._asked = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._heard_at = monotonic()
        self._is_away = False

    def __len__(self) -> int:
        """Shares that are looked after."""
        return len(self._held)

    @override
    def opened(self, allowance: Allowance) -> None:
        key = key_of(allowance)
        known = self._held.get(key)
        ahead = self._ahead.pop(key, None)
        if known is not None and ahead is not None and known.allowance is ahead:
            allowance.granted, allowance.left_elsewhere = ahead.granted, ahead.left_elsewhere
            known.allowance = allowance
        elif known is None or known.allowance is not allowance:
            known = self._held[key] = HeldShare(allowance)
        allowance.low = slice_of(allowance) // 2
        known.told, known.answered_at = None, -math.inf
        allowance.was_reserved = True
        self._asked.set()

    @override
    def used(self) -> None:
        self._asked.set()

    @override
    async def more(self, allowance: Allowance, needed: int) -> None:
        held = self._held.get(key_of(allowance))
        if held is None or held.allowance is not allowance:
            self.opened(allowance)
            held = self._held[key_of(allowance)]
        if not allowance.left_elsewhere and self._monotonic() - held.answered_at < _FRESH_SECONDS:
            return  # it was told a moment ago that nothing is left
        held.needed = max(held.needed, needed)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(answered)
        self._asked.set()
        with contextlib.suppress(TimeoutError):
            async with timeout(_WAIT_SECONDS):
                await answered
        if allowance.room < needed and (self._is_away or held.told is None):
            self._lend(held, needed)

    async def run(self, faults: Faults) -> None:
        """Renews for ever: every second, and at once where something is needed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with timeout(_RENEW_SECONDS):
                    await self._asked.wait()
            self._asked.clear()
            with faults.contained("limits"):
                await self.renew()
                continue
            await asyncio.sleep(_RENEW_SECONDS)  # after a defect

    async def close(self) -> None:
        """Reports what was used and returns the shares."""
        await self.renew(is_closing=True)

    async def renew(self, *, is_closing: bool = False) -> None:
        """Sends the claims that changed or would lapse, and wakes the requests that wait for them.

        Args:
            is_closing: nothing is wanted any more.
        """
        waiters, self._waiters = self._waiters, []
        try:
            self._look_ahead()
            claims = self._claims(is_closing=is_closing)
            for start in range(0, len(claims), _MOST_CLAIMS):
                await self._claim(claims[start : start + _MOST_CLAIMS])
        except FleetError as error:
            if not self._is_away:
                log.warning("limits.alone", reason=error.reason.value, detail=error.message)
            self._is_away = True
        finally:
            self._lapse()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _claim(self, claims: Sequence[tuple[HeldShare, pb.AllowanceClaim]]) -> None:
        request = pb.LeaseAllowancesRequest(holder=self._holder, claims=[one for _, one in claims])
        began = self._monotonic()
        try:
            async with timeout(_WAIT_SECONDS):
                response = await self._lessor.lease(request)
        except TimeoutError as error:
            told = "The registry did not say in time what may be used."
            raise FleetError(Reason.REGISTRY_UNAVAILABLE, told) from error
        if self._is_away:
            log.info("limits.shared")
        self._is_away, self._heard_at = False, self._monotonic()
        lapses_at = began + protobuf_time.seconds(response.lease)
        for (held, claim), grant in zip(claims, response.grants, strict=True):
            allowance = held.allowance
            allowance.granted, allowance.left_elsewhere = grant.granted, grant.left
            held.told = (claim.used, claim.reserved, claim.wanted, claim.limit)
            held.credit = slice_of(allowance)
            held.lapses_at = lapses_at
            held.answered_at = began

    def _claims(self, *, is_closing: bool) -> list[tuple[HeldShare, pb.AllowanceClaim]]:
        now, moment = self._clock(), self._monotonic()
        found: list[tuple[HeldShare, pb.AllowanceClaim]] = []
        for key, held in list(self._held.items()):
            allowance = held.allowance
            allowance.release(moment)
            over_for = now - allowance.window.ends_at
            is_told = held.told is not None and held.told[0] == allowance.used
            if over_for >= (0 if is_told and not allowance.reserved else _OVER_SECONDS):
                del self._held[key]
                continue
            total = allowance.used + allowance.reserved
            if allowance.was_reserved or held.needed or total != held.seen:
                allowance.was_reserved, held.last_reserved_at, held.seen = False, moment, total
            is_unheld = is_told and not (allowance.used or allowance.reserved or allowance.granted)
            if is_unheld and moment - held.last_reserved_at > _UNHELD_SECONDS:
                del self._held[key]  # `more` opens it again
                continue
            is_busy = (
                over_for < 0 and moment - held.last_reserved_at < _IDLE_SECONDS and not is_closing
            )
            wanted = allowance.used + allowance.reserved
            if is_busy:
                wanted += max(held.needed, slice_of(allowance))
            held.needed = 0
            told = (allowance.used, allowance.reserved, wanted, allowance.limit)
            if told != held.told or self._is_due(held, moment, is_busy=is_busy):
                # what is given back is given back before it is told
                allowance.granted = min(allowance.granted, wanted)
                found.append((held, claim_of(key, allowance, wanted)))
        return found

    def _is_due(self, held: HeldShare, moment: float, *, is_busy: bool) -> bool:
        """Whether a share that has not changed has to be claimed again.

        Of the devices' time others may have used more meanwhile: what neurons tell is nobody's.
        """
        allowance = held.allowance
        if allowance.meter is Meter.GPU_MILLISECONDS and is_busy:
            return True
        holds = allowance.granted > allowance.used
        return holds and held.lapses_at - moment < 2 * _IDLE_SECONDS

    def _look_ahead(self) -> None:
        """Opens the next minute of what is busy shortly before it begins."""
        now, moment = self._clock(), self._monotonic()
        for held in list(self._held.values()):
            one = held.allowance
            left = one.window.ends_at - now
            if one.period is Period.MINUTE and 0 < left < _AHEAD_SECONDS:
                window = window_at(Period.MINUTE, one.window.ends_at)
                after = Allowance(
                    one.principal, one.meter, one.period, window=window, limit=one.limit
                )
                key = key_of(after)
                if key not in self._held and moment - held.last_reserved_at < _IDLE_SECONDS:
                    after.was_reserved = True
                    self._held[key] = HeldShare(after)
                    self._ahead[key] = after

    def _lapse(self) -> None:
        """Lets go of what could not be renewed in time."""
        moment = self._monotonic()
        for held in self._held.values():
            if held.lapses_at and moment >= held.lapses_at:
                held.lapses_at = 0.0
                allowance = held.allowance
                allowance.granted = allowance.used + allowance.reserved

    def _lend(self, held: HeldShare, needed: int) -> None:
        """Lets a request through without the registry, within bounds.

        Raises:
            FleetError: REGISTRY_UNAVAILABLE: it has been away for too long, or a budget's slice is
                spent.
        """
        allowance = held.allowance
        is_short = self._monotonic() - self._heard_at <= self._away_seconds
        missing = needed - allowance.room
        if is_short and allowance.period in {Period.MINUTE, Period.ALWAYS}:
            if allowance.used + allowance.reserved + needed <= allowance.limit:
                allowance.granted += missing
            return
        if is_short and missing <= held.credit:
            held.credit -= missing
            allowance.granted += missing
            return
        told = "The registry cannot be asked how much may still be used."
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, told, retry_after_seconds=2.0)
