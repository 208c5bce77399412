"""Shares at hand: what is asked for when, and what becomes of it when nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.errors import FleetError, Reason
from services.gateway.limits.account import Account, Cost
from services.gateway.limits.allowance import LINGER_SECONDS, Allowance
from services.gateway.limits.leases import ShareLeases
from services.gateway.limits.limiter import Limiter
from services.gateway.limits.settings import KeyLimits
from services.gateway.limits.shares import SLICES
from tests.doubles.stand_in_accounting import LEASE_SECONDS, StandInLessor

NOW = 1_767_225_600.0 + 30
AWAY_SECONDS = 60.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class Gateway:
    """One gateway's limiter, whose shares are renewed when the test says so, or somebody waits."""

    def __init__(self, lessor: StandInLessor, clock: Clock, name: str, limits: KeyLimits) -> None:
        self.leases = ShareLeases(
            lessor, holder=name, away_seconds=AWAY_SECONDS, clock=clock, monotonic=clock
        )
        self.limiter = Limiter({"ada": limits}.get, self.leases, clock)

    def account(self) -> Account:
        found = self.limiter.account("ada")
        assert found is not None
        return found

    def allowance(self) -> Allowance:
        return self.account().allowances[0]

    async def admit(self, cost: Cost) -> Callable[..., None]:
        asking = asyncio.create_task(self.limiter.wait(self.account(), cost))
        while not asking.done():
            await asyncio.sleep(0)
            await self.leases.renew()
        return asking.result().settle

    async def refused(self, cost: Cost) -> FleetError:
        with pytest.raises(FleetError) as caught:
            await self.admit(cost)
        return caught.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lessor(clock: Clock) -> StandInLessor:
    return StandInLessor(clock)


@pytest.fixture
async def one(lessor: StandInLessor, clock: Clock) -> Gateway:
    return Gateway(lessor, clock, "one", KeyLimits(tokens_per_day=1600))


@pytest.fixture
async def two(lessor: StandInLessor, clock: Clock) -> Gateway:
    return Gateway(lessor, clock, "two", KeyLimits(tokens_per_day=1600))


async def test_a_slice_is_kept_at_hand_so_that_requests_only_count(one, lessor):
    (await one.admit(Cost(tokens=10)))(10)
    await one.leases.renew()
    asked = len(lessor.asked)

    for _ in range(5):
        await one.limiter.wait(one.account(), Cost(tokens=10))

    assert len(lessor.asked) == asked
    assert one.allowance().granted == 10 + 1600 // SLICES


async def test_two_gateways_together_hold_to_the_limit(one, two):
    used = 0
    with contextlib.suppress(FleetError):
        while True:
            for gateway in (one, two):
                (await gateway.admit(Cost(tokens=70)))(70)
                used += 70

    assert 1600 - 70 - 1600 // SLICES < used <= 1600
    assert (await one.refused(Cost(tokens=200))).reason is Reason.QUOTA_EXHAUSTED


async def test_what_is_not_needed_any_more_is_given_back(one, two, clock):
    (await one.admit(Cost(tokens=1500)))(20)
    assert (await two.refused(Cost(tokens=1000))).reason is Reason.QUOTA_EXHAUSTED

    clock.now += 1
    await one.leases.renew()

    await two.admit(Cost(tokens=1000))


async def test_an_idle_gateway_holds_nothing(one, lessor, clock):
    (await one.admit(Cost(tokens=10)))(10)
    clock.now += 4

    await one.leases.renew()

    assert lessor.asked[-1].claims[0].wanted == one.allowance().granted == 10


async def test_a_gateway_that_ends_tells_what_was_used_and_holds_nothing(one, two):
    (await one.admit(Cost(tokens=600)))(600)

    await one.leases.close()

    await two.admit(Cost(tokens=1000))
    assert (await two.refused(Cost(tokens=1))).reason is Reason.QUOTA_EXHAUSTED


async def test_what_a_gateway_held_that_died_comes_back(one, two, clock):
    (await one.admit(Cost(tokens=1500)))(0)
    assert (await two.refused(Cost(tokens=1000))).reason is Reason.QUOTA_EXHAUSTED

    clock.now += LEASE_SECONDS

    await two.admit(Cost(tokens=1000))


async def test_what_is_leased_is_spent_while_the_registry_is_away(one, lessor):
    (await one.admit(Cost(tokens=10)))(10)
    lessor.is_away = True
    await one.leases.renew()

    await one.limiter.wait(one.account(), Cost(tokens=90))


async def test_one_slice_of_a_budget_is_lent_while_the_registry_is_away(one, lessor):
    (await one.admit(Cost(tokens=10)))(10)
    lessor.is_away = True

    for _ in range(2 * (1600 // SLICES) // 10):
        (await one.admit(Cost(tokens=10)))(10)

    assert (await one.refused(Cost(tokens=10))).reason is Reason.REGISTRY_UNAVAILABLE


async def test_a_budget_is_counted_in_full_when_the_registry_is_back(one, lessor, clock):
    (await one.admit(Cost(tokens=10)))(10)
    lessor.is_away = True
    for _ in range(15):
        (await one.admit(Cost(tokens=10)))(10)
    lessor.is_away = False

    clock.now += 1
    await one.leases.renew()

    assert lessor.asked[-1].claims[0].used == 160


@pytest.mark.parametrize(
    "limits", [KeyLimits(requests_per_minute=5), KeyLimits(concurrent_streams=5)]
)
async def test_rates_are_held_to_alone_for_a_while(lessor, clock, limits):
    lessor.is_away = True
    alone = Gateway(lessor, clock, "alone", limits)
    for _ in range(5):
        await alone.admit(Cost(streams=1))

    assert (await alone.refused(Cost(streams=1))).reason is Reason.RATE_LIMITED


async def test_nobody_is_let_through_alone_for_longer_than_that(one, lessor, clock):
    lessor.is_away = True
    clock.now += AWAY_SECONDS + 1

    error = await one.refused(Cost(tokens=1))

    assert (error.reason, error.retry_after_seconds) == (Reason.REGISTRY_UNAVAILABLE, 2.0)


async def test_a_lease_that_was_not_renewed_lapses_here_too(one, lessor, clock):
    (await one.admit(Cost(tokens=10)))(10)
    lessor.is_away = True
    clock.now += LEASE_SECONDS

    await one.leases.renew()

    assert one.allowance().granted == 10


async def test_the_next_minute_is_leased_before_it_begins(lessor, clock):
    made = Gateway(lessor, clock, "one", KeyLimits(requests_per_minute=100))
    await made.admit(Cost())
    clock.now += 29
    await made.admit(Cost())
    await made.leases.renew()
    asked = len(lessor.asked)
    clock.now += 1

    await made.limiter.wait(made.account(), Cost())

    assert len(lessor.asked) == asked
    assert made.allowance().window.starts_at == NOW + 30


async def test_a_window_that_is_over_is_told_to_its_end_and_forgotten(lessor, clock):
    made = Gateway(lessor, clock, "one", KeyLimits(tokens_per_minute=1000))
    settle = await made.admit(Cost(tokens=100))
    clock.now += 31
    await made.leases.renew()
    settle(70)
    await made.leases.renew()
    asked = len(lessor.asked)

    await made.leases.renew()

    last = lessor.asked[-1].claims[0]
    assert (last.window_starts_unix_seconds, last.used, last.reserved) == (NOW - 30, 70, 0)
    assert len(lessor.asked) == asked


async def test_many_who_wait_are_one_call(lessor, clock):
    made = Gateway(lessor, clock, "one", KeyLimits(tokens_per_day=1600))
    asking = [
        asyncio.create_task(made.limiter.wait(made.account(), Cost(tokens=10))) for _ in range(9)
    ]
    await asyncio.sleep(0)

    await made.leases.renew()
    await asyncio.gather(*asking)

    assert len(lessor.asked) == 1


async def test_a_call_that_is_answered_too_late_is_as_none(clock, monkeypatch):
    class Silent(StandInLessor):
        async def lease(self, request: pb.LeaseAllowancesRequest) -> pb.LeaseAllowancesResponse:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("services.gateway.limits.leases._WAIT_SECONDS", 0.01)
    made = Gateway(Silent(clock), clock, "one", KeyLimits(requests_per_minute=1))

    await made.admit(Cost())
    assert (await made.refused(Cost())).reason is Reason.RATE_LIMITED


async def test_another_limit_is_asked_for_although_a_call_was_under_way(lessor, clock):
    known = {"ada": KeyLimits(concurrent_streams=0)}
    leases = ShareLeases(lessor, holder="one", away_seconds=1, clock=clock, monotonic=clock)
    limiter = Limiter(known.get, leases, clock)
    assert limiter.account("ada")
    calls = [asyncio.create_task(leases.renew())]
    await asyncio.sleep(0)
    known["ada"] = KeyLimits(concurrent_streams=1)
    account = limiter.account("ada")
    assert account is not None
    await asyncio.gather(*calls)

    asking = asyncio.create_task(limiter.wait(account, Cost(streams=1)))
    await asyncio.sleep(0)
    await leases.renew()

    await asking


async def test_what_nobody_uses_is_looked_at_no_more_and_opened_again(lessor, clock):
    limits = KeyLimits(concurrent_streams=2)
    one, two = (Gateway(lessor, clock, name, limits) for name in ("one", "two"))
    (await one.admit(Cost(streams=1)))(0)
    for _ in range(100):
        clock.now += 1
        await one.leases.renew()
    assert not len(one.leases)

    await one.admit(Cost(streams=2))

    assert (await two.refused(Cost(streams=1))).reason is Reason.RATE_LIMITED


@pytest.fixture
async def timed(lessor: StandInLessor, clock: Clock) -> Gateway:
    return Gateway(lessor, clock, "timed", KeyLimits(gpu_seconds_per_day=16.0))


async def test_of_the_devices_time_neurons_say_what_is_used(
    lessor: StandInLessor, timed: Gateway
) -> None:
    await timed.admit(Cost(device_milliseconds=1000))
    lessor.measured_milliseconds = 15_500
    await timed.leases.renew()

    error = await timed.refused(Cost(device_milliseconds=1000))

    assert error.reason is Reason.QUOTA_EXHAUSTED
    assert error.facts["limited_by"] == "gpu_seconds_per_day"
    assert error.facts["limit"] == "16"
    assert error.facts["needed"] == "1"


async def test_what_a_request_took_stays_reserved_until_neurons_have_told_it(
    clock: Clock, timed: Gateway
) -> None:
    settle = await timed.admit(Cost(device_milliseconds=4000))
    settle(10, 2500)

    await timed.leases.renew()
    reserved = [timed.allowance().reserved]
    clock.now += LINGER_SECONDS - 1
    await timed.leases.renew()
    reserved.append(timed.allowance().reserved)
    clock.now += 1
    await timed.leases.renew()
    reserved.append(timed.allowance().reserved)

    assert reserved == [2500, 2500, 0]
    assert timed.allowance().used == 0


async def test_where_nobody_says_what_a_request_took_its_estimate_stands_in(
    timed: Gateway,
) -> None:
    settle = await timed.admit(Cost(device_milliseconds=4000))
    settle(10, None)

    assert timed.allowance().reserved == 4000


async def test_no_more_than_a_quarter_of_a_budget_is_reserved_for_one_request(
    timed: Gateway,
) -> None:
    await timed.admit(Cost(device_milliseconds=10**9))

    assert timed.allowance().reserved == 4000


async def test_what_others_use_of_the_devices_is_noticed_without_a_claim_of_ones_own(
    lessor: StandInLessor, timed: Gateway
) -> None:
    (await timed.admit(Cost(device_milliseconds=100)))(1, 100)
    asked = len(lessor.asked)

    await timed.leases.renew()
    lessor.measured_milliseconds = 16_000
    await timed.leases.renew()

    assert len(lessor.asked) == asked + 2
    assert timed.allowance().room <= 0
