"""What holding the dialects against OpenAI's OpenAPI document has found: see tests/contract/openapi."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.openai_responses import stored
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.listed import listed_items
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import (
    HEAD,
    Answer,
    Event,
    Segment,
    collect,
    events_of,
    stream,
)

ANSWER = Answer((Segment("text", "Hello"),), generation.FINISH_REASON_END_OF_TURN)
COLLECTED = collect(ANSWER, events_of(ANSWER))


def whole(made: tuple[Any, Any]) -> dict[str, Any]:
    dialect, decoded = made
    found: dict[str, Any] = json.loads(dialect.body(decoded, HEAD, [COLLECTED]))
    return found


@pytest.mark.parametrize("make", [decoding.chat, decoding.completion])
def test_a_fingerprint_that_is_not_known_is_left_out(make: Any) -> None:
    assert "system_fingerprint" not in whole(make())


def test_the_user_is_repeated_or_left_out(store: ResponsesStore) -> None:
    assert "user" not in whole(decoding.responses(store))
    assert whole(decoding.responses(store, user="u"))["user"] == "u"


@pytest.mark.parametrize(
    ("sent", "listed"),
    [
        (
            "hi",
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            },
        ),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "hi"}]}],
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
                ],
            },
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}],
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:", "detail": "auto"}],
            },
        ),
        (
            [{"type": "function_call_output", "id": None, "call_id": "c", "output": "x"}],
            {
                "id": "in_1_0",
                "type": "function_call_output",
                "call_id": "c",
                "output": "x",
                "status": "completed",
            },
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "content": None}],
            {"id": "rs_1", "type": "reasoning", "summary": []},
        ),
    ],
)
def test_items_are_listed_whole(sent: Any, listed: dict[str, Any]) -> None:
    assert listed_items(sent, "resp_1") == [listed]


@pytest.mark.parametrize(
    "odd", [{"type": 1}, {"type": ["message"]}, {"role": "user", "content": [{"type": {}}, 5]}]
)
def test_what_is_no_item_is_left_as_it_came(odd: dict[str, Any]) -> None:
    (listed,) = listed_items([odd], "resp_1")

    assert odd.items() <= listed.items()


async def test_a_page_without_items_names_none(store: ResponsesStore) -> None:
    made = whole(decoding.responses(store))
    head = dataclasses.replace(HEAD, path={"response_id": made["id"]}, query={"after": "in_0123_0"})

    page = json.loads(await stored.InputItems(store).answer(b"", head, None))  # type: ignore[arg-type]

    assert (page["data"], page["first_id"], page["last_id"]) == ([], "", "")


def test_an_item_that_was_named_is_stored_whole(store: ResponsesStore) -> None:
    """And so is part of what a later response goes on from."""
    first = whole(decoding.responses(store))
    named = {"type": "item_reference", "id": first["output"][0]["id"]}

    _, decoded = decoding.responses(store, input=[named, {"role": "user", "content": "go on"}])

    detail: ResponseDetail = decoded.detail
    assert detail.input_items[0] == first["output"][0]


def test_each_text_has_its_own_log_probabilities_streamed_or_not(store: ResponsesStore) -> None:
    """A token without text of its own (half a character) opens no item; it is the next text's."""

    def token(text: str, piece: bytes) -> Event:
        one = generation.TokenLogprob(text=piece, logprob=-1)
        return Event(text=generation.TextDelta(text=text, token_ids=[1], logprobs=[one]))

    def thought(text: str) -> Event:
        return Event(reasoning=generation.ReasoningDelta(text=text))

    call = generation.ToolCallDelta(index=0, call_id="c", name="f", arguments_json="{}")
    events = [
        thought("h"), token("", b"\xf0\x9f"), thought("m"), token("🙂", b"\x99\x82"),
        token("", b"x"), Event(tool_call=call), token("b", b"b"),
    ]  # fmt: skip
    dialect, decoded = decoding.responses(
        store, include=["message.output_text.logprobs"], top_logprobs=1
    )

    unstreamed = json.loads(dialect.body(decoded, HEAD, [collect(ANSWER, events)]))["output"]
    told = legal.sse(stream(dialect, decoded, ANSWER, events))

    assert [one["type"] for one in unstreamed] == [
        "reasoning", "message", "function_call", "message",
    ]  # fmt: skip
    assert [len(unstreamed[index]["content"][0]["logprobs"]) for index in (1, 3)] == [3, 1]
    assert told[-1][1]["response"]["output"] == unstreamed
