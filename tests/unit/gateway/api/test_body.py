"""What a request has read besides its body counts as a part of it."""

from __future__ import annotations

import asyncio

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.api.body import IncomingBody
from services.gateway.dialects.dialect import TooMuchHereError
from services.gateway.http1.budget import BodyBudget, Pace

PACE = Pace(grace_seconds=1, bytes_per_second=1)


def body(budget: BodyBudget, **bounds: int) -> IncomingBody:
    return IncomingBody(
        **{"max_bytes": 1 << 20, "most_items": 100} | bounds, budget=budget, pace=PACE
    )


def test_what_is_read_besides_is_taken_out_of_the_budget_and_given_back_once() -> None:
    budget = BodyBudget(1000)
    one = body(budget)

    one.take(600)
    with pytest.raises(FleetError) as raised:
        one.take(600)
    assert raised.value.reason is Reason.QUEUE_FULL
    one.release()
    one.release()

    assert budget.held_bytes == 0


def test_more_than_a_body_may_have_is_refused_by_the_fields_and_the_settings_names() -> None:
    budget = BodyBudget(1 << 30)
    one = body(budget, max_bytes=1000)

    with pytest.raises(FleetError, match=r"gateway\.max_body_bytes") as bytes_raised:
        one.take(1001)
    for _ in range(2):  # of what is stored there may be four times as many
        one.take_items(b"[" + b"0," * 160 + b"0]")
    with pytest.raises(FleetError, match=r"gateway\.max_body_items") as items_raised:
        one.take_items(b"[" + b"0," * 160 + b"0]")

    for raised in (bytes_raised, items_raised):
        assert raised.value.reason is Reason.BODY_TOO_LARGE
        assert raised.value.field == "previous_response_id"
    assert budget.held_bytes == 0


async def test_much_is_read_in_a_thread_alone() -> None:
    budget = BodyBudget(1 << 30)
    one = body(budget)

    one.take(100 << 10)
    with pytest.raises(TooMuchHereError):
        one.take(100 << 10)
    await asyncio.to_thread(one.take, 100 << 10)

    assert budget.held_bytes == 200 << 10


def test_a_thread_that_reads_for_a_client_that_has_left_takes_nothing() -> None:
    budget = BodyBudget(1000)
    one = body(budget)
    one.release()

    with pytest.raises(FleetError) as raised:
        one.take(10)

    assert raised.value.reason is Reason.CANCELLED
    assert budget.held_bytes == 0
