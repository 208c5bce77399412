"""Look-ups of stored responses."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.openai_responses import stored
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import (
    HEAD,
)
from tests.unit.gateway.dialects.openai_responses.bodies import _NoFleet, look_up, told
from tests.unit.gateway.dialects.whole_answers import whole_answer


async def test_a_response_is_found_and_forgotten(store: ResponsesStore) -> None:
    response = told(store)

    assert response == await look_up(stored.RetrieveResponse, store, response["id"])
    receipt = await look_up(stored.DeleteResponse, store, response["id"])
    assert receipt["deleted"]
    with pytest.raises(FleetError) as raised:
        await look_up(stored.RetrieveResponse, store, response["id"])
    assert Reason.NOT_FOUND is raised.value.reason


async def test_what_shall_not_be_stored_is_not(store: ResponsesStore) -> None:
    response = told(store, store=False)

    with pytest.raises(FleetError):
        await look_up(stored.RetrieveResponse, store, response["id"])


async def test_a_response_is_found_by_its_owner_only(store: ResponsesStore) -> None:
    response = told(store)

    with pytest.raises(FleetError):
        await look_up(stored.RetrieveResponse, store, response["id"], principal="somebody else")


async def test_input_items_are_listed_page_by_page(store: ResponsesStore) -> None:
    response = told(store, input=[{"role": "user", "content": str(n)} for n in range(3)])
    lookup = stored.InputItems(store)

    async def page(**query: str) -> dict[str, Any]:
        head = Head("r", {}, query, 1, path={"response_id": response["id"]})
        return dict(json.loads(await lookup.answer(b"", head, _NoFleet())))

    first = await page(order="asc", limit="2")
    rest = await page(order="asc", after=first["last_id"])

    texts = [item["content"][0]["text"] for item in [*first["data"], *rest["data"]]]
    assert ["0", "1", "2"] == texts
    assert (True, False) == (first["has_more"], rest["has_more"])
    assert "2" == (await page())["data"][0]["content"][0]["text"]


async def test_a_finished_response_cannot_be_cancelled(store: ResponsesStore) -> None:
    response = told(store)
    head = Head("r", {}, {}, 1, path={"response_id": response["id"]})

    lookup = stored.CancelResponse(store, BackgroundRuns(store))
    with pytest.raises(FleetError, match="Cannot cancel a synchronous response"):
        await lookup.answer(b"", head, _NoFleet())


async def test_an_input_is_counted(store: ResponsesStore) -> None:
    class Counting(_NoFleet):
        async def count_tokens(
            self, request: neuron.CountTokensRequest
        ) -> neuron.CountTokensResponse:
            return neuron.CountTokensResponse(tokens=len(request.chat.messages))

    body = json.dumps({"model": "m", "input": "hi", "instructions": "s", "stream": True}).encode()

    told_count = json.loads(await stored.CountInput(store).answer(body, HEAD, Counting()))

    assert {"object": "response.input_tokens", "input_tokens": 2} == told_count


async def test_a_page_without_items_names_none(store: ResponsesStore) -> None:
    made = whole_answer(decoding.responses(store))
    head = msgspec.structs.replace(
        HEAD, path={"response_id": made["id"]}, query={"after": "in_0123_0"}
    )

    page = json.loads(await stored.InputItems(store).answer(b"", head, None))  # type: ignore[arg-type]

    assert (page["data"], page["first_id"], page["last_id"]) == ([], "", "")
