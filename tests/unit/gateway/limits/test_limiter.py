"""Who is let through, and what is counted behind him."""

from __future__ import annotations

import math

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.limits.account import Account, Cost
from services.gateway.limits.allowance import Allowance
from services.gateway.limits.limiter import Grants, Limiter
from services.gateway.limits.settings import KeyLimits

# The first of a month, half a minute before another minute begins.
NOW = 1_767_225_600.0 + 30


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class OwnGrants(Grants):
    """Grants every limit whole."""

    def opened(self, allowance: Allowance) -> None:
        """Grants it."""
        allowance.granted = allowance.limit

    def used(self) -> None:
        """Nothing is to be had beyond it."""

    async def more(self, allowance: Allowance, needed: int) -> None:
        """Nothing is to be had beyond it."""


class Later(OwnGrants):
    """Grants nothing until it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Allowance, int]] = []

    def opened(self, allowance: Allowance) -> None:
        """Grants nothing."""

    async def more(self, allowance: Allowance, needed: int) -> None:
        """Grants what is needed."""
        self.asked.append((allowance, needed))
        allowance.granted += needed


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(clock: Clock, **limits: float) -> Limiter:
    known = KeyLimits(**limits)  # type: ignore[arg-type]
    return Limiter({"ada": known}.get, OwnGrants(), clock)


def account(made: Limiter) -> Account:
    found = made.account("ada")
    assert found is not None
    return found


async def refused(made: Limiter, cost: Cost) -> FleetError:
    with pytest.raises(FleetError) as caught:
        await made.wait(account(made), cost)
    return caught.value


def test_a_principal_without_limits_has_no_account(clock):
    assert limiter(clock, requests_per_minute=1).account("bob") is None


async def test_a_limit_lets_through_what_it_says_and_no_more(clock):
    made = limiter(clock, requests_per_minute=2)

    await made.wait(account(made), Cost())
    await made.wait(account(made), Cost())
    error = await refused(made, Cost())

    assert error.reason is Reason.RATE_LIMITED
    assert error.retry_after_seconds == 30
    assert error.facts["limited_by"] == "requests_per_minute"


async def test_another_minute_is_another_window(clock):
    made = limiter(clock, requests_per_minute=1)
    await made.wait(account(made), Cost())

    clock.now += 30

    await made.wait(account(made), Cost())
    await refused(made, Cost())


@pytest.mark.parametrize("used", [0, 7, 40])
async def test_what_was_used_takes_the_place_of_what_was_reserved(clock, used):
    made = limiter(clock, tokens_per_day=100)

    reservation = await made.wait(account(made), Cost(tokens=30))
    reservation.settle(used)
    reservation.settle(1000)  # only once

    (allowance,) = account(made).allowances
    assert (allowance.used, allowance.reserved, allowance.left) == (used, 0, 100 - used)


async def test_a_request_that_is_refused_reserves_nothing(clock):
    made = limiter(clock, tokens_per_minute=100, tokens_per_day=10)

    await refused(made, Cost(tokens=11))

    assert [one.reserved for one in account(made).allowances] == [0, 0]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"tokens_per_minute": 10}, Reason.RATE_LIMITED),
        ({"tokens_per_day": 10}, Reason.QUOTA_EXHAUSTED),
        ({"tokens_per_month": 10}, Reason.QUOTA_EXHAUSTED),
    ],
)
async def test_what_never_fits_is_told_not_to_come_again(clock, limits, reason):
    error = await refused(limiter(clock, **limits), Cost(tokens=11))

    assert (error.reason, error.retry_after_seconds) == (reason, None)
    assert "never" in error.facts


async def test_places_come_back_when_generations_end(clock):
    made = limiter(clock, concurrent_streams=2)
    reservation = await made.wait(account(made), Cost(streams=2))
    error = await refused(made, Cost(streams=1))
    assert (error.reason, error.retry_after_seconds) == (Reason.RATE_LIMITED, 1.0)

    reservation.settle(500)

    await made.wait(account(made), Cost(streams=2))


async def test_a_limit_of_zero_lets_nothing_through(clock):
    assert "never" in (await refused(limiter(clock, requests_per_minute=0), Cost())).facts


async def test_an_answer_of_unstated_length_fits_into_small_limits(clock):
    made = limiter(clock, tokens_per_minute=400)

    await made.wait(account(made), Cost(tokens=10, unstated_tokens=1024))

    assert account(made).allowances[0].reserved == 110


async def test_other_limits_keep_what_was_used(clock):
    known = {"ada": KeyLimits(tokens_per_day=100)}
    made = Limiter(known.get, OwnGrants(), clock)
    (await made.wait(account(made), Cost(tokens=60))).settle(60)

    known["ada"] = KeyLimits(tokens_per_day=70, requests_per_minute=5)

    assert await refused(made, Cost(tokens=20))
    await made.wait(account(made), Cost(tokens=10))


async def test_more_is_asked_for_before_a_request_is_refused(clock):
    grants = Later()
    made = Limiter({"ada": KeyLimits(tokens_per_day=100)}.get, grants, clock)

    await made.wait(account(made), Cost(tokens=30))

    ((allowance, needed),) = grants.asked
    assert (needed, allowance.reserved) == (30, 30)


def test_an_account_without_windows_turns_now_and_then(clock):
    made = limiter(clock, max_output_tokens=5)

    assert clock.now < account(made).turns_at < math.inf


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"max_output_tokens": 5}, 2 * 3600),
        ({"concurrent_streams": 2, "requests_per_minute": 5}, 2 * 3600),
        ({"tokens_per_day": 100}, 86_400 + 3600),
    ],
)
async def test_accounts_that_are_over_are_forgotten(clock, limits, seconds):
    """As there is one for each person of an identity provider."""
    made = Limiter(lambda _: KeyLimits(**limits), OwnGrants(), clock)
    cost = Cost(streams=1, tokens=60)

    for number in range(1500):
        person = made.account(str(number))
        assert person is not None
        (await made.wait(person, cost)).settle(60)
    clock.now += seconds
    for number in range(1500, 4000):
        made.account(str(number))

    assert len(made) < 3000


async def test_an_account_is_kept_as_long_as_what_it_has_used_counts(clock):
    made = Limiter(lambda _: KeyLimits(tokens_per_month=100), OwnGrants(), clock)
    (await made.wait(account(made), Cost(tokens=60))).settle(60)

    clock.now += 27 * 86_400
    for number in range(5000):
        made.account(str(number))

    assert await refused(made, Cost(tokens=60))


async def test_an_account_is_kept_while_one_of_its_requests_runs(clock):
    made = Limiter(lambda _: KeyLimits(concurrent_streams=1), OwnGrants(), clock)
    running = await made.wait(account(made), Cost(streams=1))

    clock.now += 86_400
    for number in range(5000):
        made.account(str(number))

    assert await refused(made, Cost(streams=1))
    running.settle(0)
    await made.wait(account(made), Cost(streams=1))
