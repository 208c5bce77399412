"""A budget shared by two gateways under load, and kill -9 of one of them and of the registry."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt

import grpc
import httpx
import pytest

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from services.gateway.limits.shares import SLICES
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet, is_ready, until

BUDGET = 10_000
SLICE = BUDGET // SLICES
CLIENTS = 32
KEY = f"""
[[auth.keys]]
name = "ada"
key = "sk-ada"
limits = {{ tokens_per_month = {BUDGET} }}
"""
BODY = {
    "model": "alpha",
    "messages": [{"role": "user", "content": "How are you today?"}],
    "max_tokens": 16,
}
# What one request reserves at most: its few fields, what a template adds, and its answer.
RESERVED = 80


@dataclasses.dataclass
class Seen:
    """What the clients saw.

    Attributes:
        tokens: of all answers that came.
        lost: requests of which nobody knows whether they ran.
        refused: that the budget did not let through.
        away: that nobody could decide on.
    """

    tokens: int = 0
    answers: int = 0
    lost: int = 0
    refused: int = 0
    away: int = 0


async def spend(urls: list[str], seen: Seen, *, refusals: int = 3) -> None:
    """Asks one gateway after the other until so many refusals have come one behind the other."""
    headers = {"authorization": "Bearer sk-ada"}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client:
        refused = 0
        while refused < refusals:
            urls.append(urls.pop(0))
            try:
                answer = await client.post(
                    f"{urls[0]}/v1/chat/completions", json=BODY, headers=headers
                )
            except httpx.ConnectError:
                await asyncio.sleep(0.05)  # it has been killed
                continue
            except httpx.HTTPError:
                seen.lost += 1
                continue
            if answer.status_code == 200:
                refused = 0
                seen.answers += 1
                seen.tokens += answer.json()["usage"]["total_tokens"]
            elif answer.status_code == 429:
                assert answer.json()["error"]["code"] == "insufficient_quota", answer.text
                refused += 1
                seen.refused += 1
                await asyncio.sleep(1.5)  # what another gateway holds and does not need comes back
            else:
                assert answer.json()["error"]["code"] == "registry_unavailable", answer.text
                seen.away += 1
                await asyncio.sleep(0.2)


def counted(fleet: Fleet) -> int:
    """The tokens that the registry has counted and that gateways still hold, in this month."""
    now = dt.datetime.now(dt.UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + dt.timedelta(days=32)).replace(day=1)
    claim = pb.AllowanceClaim(
        principal="ada",
        meter=pb.METER_TOKENS,
        period=pb.PERIOD_MONTH,
        window_starts_unix_seconds=int(first.timestamp()),
        window_ends_unix_seconds=int(after.timestamp()),
        limit=10 * BUDGET,
    )
    request = pb.LeaseAllowancesRequest(holder="test", claims=[claim])
    with grpc.insecure_channel(fleet.registries[0]) as channel:
        stub = accounting_grpc.AccountingServiceStub(channel)
        return 10 * BUDGET - stub.LeaseAllowances(request, timeout=5).grants[0].left


@pytest.fixture
def two(fleet: Fleet) -> list[str]:
    """A registry, a neuron, and two gateways; their URLs."""
    fleet.add_registry()
    fleet.add_neuron("left")
    urls = [fleet.add_gateway("second", settings=KEY), fleet.add_gateway(settings=KEY)]
    fleet.wait("left")
    until(lambda: is_ready(urls[0]))
    return urls


async def test_two_gateways_share_a_budget(fleet, two, measured):
    seen = Seen()

    await asyncio.gather(*(spend([*two], seen) for _ in range(CLIENTS)))

    measured(f"budget of {BUDGET} tokens, {CLIENTS} clients, 2 gateways: {seen}")
    assert BUDGET - 2 * RESERVED < seen.tokens <= BUDGET
    assert (seen.lost, seen.away) == (0, 0)
    until(lambda: counted(fleet) == seen.tokens, 15)


async def test_a_killed_gateway_and_a_killed_registry_lose_no_more_than_is_written(
    fleet, two, measured
):
    seen = Seen()
    # longer than the killed gateway's lease
    spending = asyncio.gather(*(spend([*two], seen, refusals=9) for _ in range(CLIENTS)))
    await asyncio.to_thread(until, lambda: seen.tokens > BUDGET // 4)
    fleet["second"].kill()
    await asyncio.to_thread(until, lambda: seen.tokens > BUDGET // 2)
    fleet["registry"].kill()
    await asyncio.sleep(1)
    fleet["registry"].start()

    await spending

    # the killed gateway's: what it had used since it told, and what it ran; and one slice is lent
    # to the other while the registry is away
    untold = SLICE + CLIENTS * RESERVED
    until(lambda: fleet.live() == {"left"})
    assert fleet["gateway"].end() == 0
    known = counted(fleet)
    measured(
        f"budget of {BUDGET} tokens, a gateway and the registry killed: {seen}, counted {known}"
    )
    assert seen.tokens <= BUDGET + untold + SLICE
    assert seen.tokens - untold <= known <= seen.tokens + seen.lost * RESERVED
    assert known > BUDGET - 2 * RESERVED
