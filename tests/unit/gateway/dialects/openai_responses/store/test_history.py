"""Conversations chained by stored responses."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.store.history import History
from services.gateway.dialects.openai_responses.store.responses import (
    ConnectionResponses,
    StoredResponse,
)
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.http1.budget import BodyBudget
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.conversations import parts
from tests.unit.gateway.dialects.openai_responses.bodies import conversed, told
from tests.unit.gateway.dialects.whole_answers import whole_answer


def test_a_conversation_goes_on_from_its_last_response(store: ResponsesStore) -> None:
    first = told(store)
    second = told(
        store, input="and?", previous_response_id=first["id"], instructions="not carried over"
    )

    found = conversed(
        store, {"role": "user", "content": "third"}, previous_response_id=second["id"]
    )

    assert [
        [("text", "hello")],
        [("reasoning", conversation.ReasoningPart(text="hm")), ("text", "hi")],
        [("text", "and?")],
        [("reasoning", conversation.ReasoningPart(text="hm")), ("text", "hi")],
        [("text", "third")],
    ] == [parts(one) for one in found]


def test_items_are_found_by_their_ids(store: ResponsesStore) -> None:
    response = told(store)
    reference = {"type": "item_reference", "id": response["output"][1]["id"]}

    assert [[("text", "hi")]] == [parts(one) for one in conversed(store, reference)]


def test_encrypted_reasoning_comes_back(store: ResponsesStore) -> None:
    response = told(store, include=["reasoning.encrypted_content"], reasoning={"summary": "auto"})
    item = response["output"][0]

    assert [{"type": "summary_text", "text": "hm"}] == item["summary"]
    (found,) = conversed(store, item | {"summary": []})
    assert "hm" == found.parts[0].reasoning.text


def test_an_item_that_was_named_is_stored_whole(store: ResponsesStore) -> None:
    """And so is part of what a later response goes on from."""
    first = whole_answer(decoding.responses(store))
    named = {"type": "item_reference", "id": first["output"][0]["id"]}

    _, decoded = decoding.responses(store, input=[named, {"role": "user", "content": "go on"}])

    detail: ResponseDetail = decoded.detail
    assert detail.input_items[0] == first["output"][0]


class Counted:
    """An allowance that counts."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.items: list[bytes] = []

    def take(self, size: int) -> None:
        self.bytes.append(size)

    def take_items(self, text: bytes) -> None:
        self.items.append(text)


def record(name: str, previous: str | None = None, *, size: int = 0) -> StoredResponse:
    item = {"id": f"msg_{name}_0", "type": "message", "content": "x" * size}
    response = json.dumps({"id": f"resp_{name}", "output": [item]}).encode()
    return StoredResponse(f"resp_{name}", previous, "ann", response, b"[]")


def test_a_chain_counts_whole_before_any_of_it_is_read(store: ResponsesStore) -> None:
    chain = [record("0", size=1000), record("1", "resp_0", size=2000)]
    for each in chain:
        store.put(each)
    counted = Counted()

    items = History(store).before("resp_1", owner="ann", allowance=counted)

    assert [item["id"] for item in items] == ["msg_0_0", "msg_1_0"]
    assert counted.bytes == [sum(each.size() for each in chain)]
    assert counted.items == [b"[]", chain[0].response, b"[]", chain[1].response]


def test_a_chain_that_may_not_be_read_is_not(store: ResponsesStore, monkeypatch: Any) -> None:
    store.put(record("0"))
    monkeypatch.setattr(store, "get", lambda *_, **__: pytest.fail("it was read"))

    class Nothing(Counted):
        def take(self, size: int) -> None:
            raise FleetError(Reason.BODY_TOO_LARGE, "too large")

    with pytest.raises(FleetError, match="too large"):
        History(store).before("resp_0", owner="ann", allowance=Nothing())


def test_a_chain_of_more_than_a_thousand_is_refused_and_not_cut(store: ResponsesStore) -> None:
    for number in range(1001):
        store.put(record(str(number), f"resp_{number - 1}" if number else None))
    history = History(store)

    assert len(history.before("resp_999", owner="ann", allowance=None)) == 1000
    with pytest.raises(FleetError, match="more than 1000") as raised:
        history.before("resp_1000", owner="ann", allowance=None)

    assert raised.value.reason is Reason.BAD_REQUEST
    assert raised.value.field == "previous_response_id"


def test_a_chain_that_leads_to_itself_is_refused(store: ResponsesStore) -> None:
    store.put(dataclasses.replace(record("0"), previous_id="resp_0"))

    with pytest.raises(FleetError, match="more than 1000"):
        History(store).before("resp_0", owner="ann", allowance=None)


def test_a_response_is_read_once_however_often_it_is_named_and_each_item_counts(
    store: ResponsesStore,
) -> None:
    kept = record("0", size=1000)
    store.put(kept)
    counted = Counted()
    named = [{"type": "item_reference", "id": "msg_0_0"}] * 50

    found = History(store).resolve(named, owner="ann", allowance=counted)

    assert len(found) == 50
    assert counted.bytes[0] == kept.size()
    assert len(counted.bytes) == 51
    assert all(size > 1000 for size in counted.bytes[1:])
    assert len(counted.items) == 2


def test_what_a_connection_keeps_is_within_the_budget_of_all_bodies(store: ResponsesStore) -> None:
    one = record("0", size=1000)
    budget = BodyBudget(3 * one.size())
    kept = ConnectionResponses(store, budget)
    for number in range(5):
        kept.put(record(str(number), size=1000), stored=False)
        kept.put(record(str(number), size=1000), stored=False)  # again

    assert budget.held_bytes == 3 * one.size()
    assert kept.get("resp_1", owner="ann") is None
    assert kept.get("resp_4", owner="ann") is not None
    assert kept.get("resp_4", owner="bob") is None
    kept.put(record("9", size=9000), stored=False)  # larger than all there is
    assert kept.get("resp_9", owner="ann") is None
    kept.put(one, stored=False)
    kept.evict("resp_0")
    kept.put(one, stored=False)
    kept.close()
    assert budget.held_bytes == 0


def test_a_connection_keeps_the_newest_64(store: ResponsesStore) -> None:
    kept = ConnectionResponses(store, BodyBudget(1 << 30))
    for number in range(70):
        kept.put(record(str(number)), stored=False)

    assert [n for n in range(70) if kept.get(f"resp_{n}", owner="ann")] == list(range(6, 70))
