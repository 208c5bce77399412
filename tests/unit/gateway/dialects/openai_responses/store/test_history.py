"""Conversations chained by stored responses."""

from __future__ import annotations

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
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
