"""CPU time that keys, limits and usage take of one request, side by side with none of them.

Run as `python -m bench.limits`. Each round does what the gateway does for a request with a key of
four limits, and the same loop without it; the difference is what it costs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import generation_pb2 as generation
from services.backplane import protobuf_time
from services.gateway.auth.auth import Auth
from services.gateway.limits.headers import limit_headers
from services.gateway.limits.leases import ShareLeases
from services.gateway.limits.limiter import Limiter
from services.gateway.limits.requests import bounded
from services.gateway.limits.settings import KeyLimits
from services.gateway.limits.usage import UsageCounts, Used
from services.gateway.settings import ApiKey, AuthSettings

# Short ones: on a machine that others use too, the least of many has met nobody.
_ROUNDS: Final = 100
_REQUESTS: Final = 1_000
_MANY: Final = 2**50
# Requests whose usage is counted in one go: they are added up as they are logged.
_TOGETHER: Final = 64
_HEADERS: Final = {"authorization": "Bearer sk-ada", "content-type": "application/json"}
_TWO: Final = KeyLimits(requests_per_minute=_MANY, tokens_per_minute=_MANY)
_FOUR: Final = KeyLimits(
    requests_per_minute=_MANY,
    tokens_per_minute=_MANY,
    concurrent_streams=_MANY,
    tokens_per_month=_MANY,
    max_output_tokens=4096,
)


class _Generous:
    """Grants what is wanted."""

    async def lease(self, request: pb.LeaseAllowancesRequest) -> pb.LeaseAllowancesResponse:
        """All of it."""
        grants = [pb.AllowanceGrant(granted=one.limit) for one in request.claims]
        return pb.LeaseAllowancesResponse(lease=protobuf_time.duration(1e6), grants=grants)


class _Request:
    """What a request goes through.

    Args:
        limits: of its key.
        counts: whether its usage is counted.
    """

    def __init__(self, limits: KeyLimits | None, *, counts: bool) -> None:
        key = ApiKey(name="ada", key="sk-ada", limits=limits)
        self._auth = Auth(AuthSettings(keys=(key,)))
        began = time.time()  # no minute ends meanwhile
        self.leases = ShareLeases(
            _Generous(), holder="bench", away_seconds=1e6, clock=lambda: began
        )
        self._limiter = Limiter(self._auth.limits, self.leases, clock=lambda: began)
        self._usage = UsageCounts("bench") if counts else None
        self._ended = 0
        request = generation.GenerateRequest(request_id="req_1", principal="ada")
        request.chat.messages.add().parts.add(text="How are you today? " * 20)
        request.stop.max_tokens = 200
        self._requests = [request]

    async def key(self) -> None:
        """The key alone."""
        self._auth.holder(_HEADERS, "127.0.0.1")

    async def limited(self) -> None:
        """Key, limits and headers; usage where it is counted."""
        self._auth.holder(_HEADERS, "127.0.0.1")
        account = self._limiter.account("ada")
        if account is not None:
            costs = self._limiter.device_costs if account.open.devices else None
            cost = bounded(self._requests, account.limits, costs)
            reservation = self._limiter.reserve(account, cost)
            if reservation is None:
                reservation = await self._limiter.wait(account, cost)
            limit_headers(account, "openai_chat")
            reservation.settle(300)
        if self._usage is not None:
            self._ended += 1
            if self._ended == _TOGETHER:
                self._ended = 0
                used = Used(_TOGETHER * 100, 0, _TOGETHER * 200, 0)
                self._usage.note("ada", "tiny", used, _TOGETHER)


async def _nothing() -> None:
    """A request without any of it."""


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.process_time()
    for _ in range(_REQUESTS):
        await work()
    return (time.process_time() - began) / _REQUESTS


async def main() -> None:
    """Prints microseconds of CPU, the least and the median of the rounds; and the load."""
    plain = _Request(None, counts=True)
    two, four = (_Request(limits, counts=False) for limits in (_TWO, _FOUR))
    counted = _Request(_FOUR, counts=True)
    limited = (two, four, counted)
    for one in limited:
        first = asyncio.create_task(one.limited())
        await asyncio.sleep(0)
        await one.leases.renew()
        await first
    cases = {
        "key": plain.key,
        "key with two limits, headers": two.limited,
        "key with four limits, headers": four.limited,
        "key with four limits, headers, usage": counted.limited,
        "key without limits, usage": plain.limited,
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(_ROUNDS):
        for name, work in cases.items():
            nothing, something = await _seconds(_nothing), await _seconds(work)
            found[name].append((something - nothing) * 1e6)
        for one in limited:
            await one.leases.renew()
    print("| of a request | µs of CPU, least | median |")
    print("|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {min(each):.2f} | {statistics.median(each):.2f} |")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
