"""The fleet and other servers, one after the other."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.routing.upstreams.fallback import first_able, here_or_there


async def failing(reason: Reason) -> str:
    raise FleetError(reason, f"{reason.value}.")


def asking(*answers: str | Reason) -> tuple[list[Any], Callable[[Any], Awaitable[str]], list[Any]]:
    """Servers by number, how they are asked, and those that were."""
    asked: list[Any] = []

    async def ask(server: Any) -> str:
        asked.append(server)
        answer = answers[server]
        return await failing(answer) if isinstance(answer, Reason) else answer

    return list(range(len(answers))), ask, asked


async def test_the_next_is_asked_where_one_cannot_answer() -> None:
    servers, ask, asked = asking(Reason.UPSTREAM_FAILED, Reason.NOT_SUPPORTED, "b", "c")

    assert await first_able(servers, ask) == "b"
    assert asked == [0, 1, 2]


async def test_a_mistake_of_the_client_is_told_at_once() -> None:
    servers, ask, asked = asking(Reason.BAD_REQUEST, "b")

    with pytest.raises(FleetError, match="BAD_REQUEST"):
        await first_able(servers, ask)
    assert asked == [0]


async def test_the_fleet_says_why_where_no_server_is_able() -> None:
    told: list[FleetError] = []
    servers, ask, asked = asking(Reason.NOT_SUPPORTED)
    here = failing(Reason.NO_ROOM)

    with pytest.raises(FleetError, match="NO_ROOM"):
        await here_or_there(here, lambda: servers, ask, on_unserved=told.append)
    assert asked == [0]
    assert [one.reason for one in told] == [Reason.NO_ROOM]


async def test_of_a_model_that_is_unknown_here_the_server_says_why() -> None:
    servers, ask, _ = asking(Reason.NOT_SUPPORTED)

    with pytest.raises(FleetError, match="NOT_SUPPORTED"):
        await here_or_there(failing(Reason.MODEL_UNKNOWN), lambda: servers, ask)


async def test_a_server_that_was_taken_out_meanwhile_leaves_the_fleets_answer() -> None:
    _, ask, _ = asking()

    with pytest.raises(FleetError, match="NO_ROOM"):
        await here_or_there(failing(Reason.NO_ROOM), list, ask)
