"""Responses over a WebSocket, by OpenAI's document."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.api import Tally, checked
from tests.contract.openapi.document import Document
from tests.contract.openapi.test_responses import CASES
from tests.integration.gateway.responses_socket import connected


@pytest.mark.parametrize("lane", [None, "agent_1"])
async def test_a_connection(
    document: Document, fleet: str, tally: Tally, *, lane: str | None
) -> None:
    address = fleet.removeprefix("http://")
    lanes = {} if lane is None else {"stream_id": lane}
    orders = ("plain", "reasoning", "two calls", "a custom call", "cut")
    cases: list[dict[str, Any]] = [CASES[name] for name in orders]
    async with connected(address) as socket:
        await socket.open(address)
        turns = [await socket.turn(model=MODEL, **lanes, **case) for case in cases]
        turns.append(await socket.turn(model="nobody", input="Hi", **lanes))

    for events in turns:
        for event in events:
            assert event.pop("stream_id", None) == lane
            checked(document, tally, "/responses", event, streamed=True)
    assert [events[-1]["type"] for events in turns[-2:]] == ["response.incomplete", "error"]
