"""A server that cannot be reached rests; one that answers, whatever it says, does not."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.routing.upstreams.breaker import Breaker
from services.gateway.transports.upstream.errors import Words

WORDS = Words("far", "")
AWAY = WORDS.away("could not be reached")


class Server:
    """Asks through a breaker, by a clock that stands still."""

    def __init__(self, rest_seconds: float = 10.0) -> None:
        self.now = 100.0
        self.ups: list[bool] = []
        self.breaker = Breaker(
            WORDS, rest_seconds, on_change=self.ups.append, clock=lambda: self.now
        )
        self.asked = 0

    def ask(self, outcome: BaseException | None = AWAY, times: int = 1) -> FleetError:
        """The last error that came of it."""
        error: BaseException | None = None
        for _ in range(times):
            try:
                with self.breaker.guarded():
                    self.asked += 1
                    if outcome is not None:
                        raise outcome
            except (FleetError, asyncio.CancelledError) as caught:
                error = caught
        assert isinstance(error, FleetError) or outcome is not AWAY
        return error if isinstance(error, FleetError) else FleetError(Reason.INTERNAL, "none")


def test_after_five_failures_in_a_row_it_rests():
    far = Server()

    far.ask(times=5)
    refused = far.ask(None)

    assert 5 == far.asked
    assert (Reason.UPSTREAM_FAILED, 10.0) == (refused.reason, refused.retry_after_seconds)
    assert "'far' could not be reached for 5 times in a row and rests" in refused.message
    assert [False] == far.ups


@pytest.mark.parametrize(
    "between", [None, FleetError(Reason.QUEUE_FULL, "x"), WORDS.failed("answered with HTTP 404")]
)
def test_an_answer_between_lets_it_go_on(between: FleetError | None):
    far = Server()

    for _ in range(5):
        far.ask(times=4)
        far.ask(between)

    assert 25 == far.asked
    assert [] == far.ups


def test_then_one_request_is_let_through_and_decides():
    far = Server()
    far.ask(times=5)
    far.now += 10

    with contextlib.suppress(FleetError), far.breaker.guarded():
        far.ask(None)  # another one meanwhile
        assert 5 == far.asked
        raise AWAY
    far.ask(None)
    assert 5 == far.asked
    far.now += 10
    far.ask(None, times=3)

    assert 8 == far.asked
    assert [False, True] == far.ups


def test_a_trial_whose_client_leaves_says_nothing():
    far = Server()
    far.ask(times=5)
    far.now += 10

    far.ask(asyncio.CancelledError())
    far.ask(None)

    assert 7 == far.asked
    assert [False, True] == far.ups


def test_without_a_time_it_never_rests():
    far = Server(rest_seconds=0)

    far.ask(times=50)

    assert 50 == far.asked
