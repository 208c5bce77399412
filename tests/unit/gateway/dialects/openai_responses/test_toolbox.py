"""Tools of responses requests, and calls of them."""

from __future__ import annotations

from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import Answer, Segment, events_of, stream
from tests.unit.gateway.dialects.openai_responses.bodies import TOOL, request_of


def test_unknown_kinds_of_tools_are_passed_over(store: ResponsesStore) -> None:
    found = request_of(
        store,
        tools=[
            TOOL,
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "g"}]},
            {"type": "web_search", "external_web_access": False},
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
            {"type": "brand_new", "name": 5},
        ],
        tool_choice="auto",
    ).chat

    assert ["f", "g", "patch"] == [one.name for one in found.tools]


def test_calls_are_told_in_the_form_of_their_tools(store: ResponsesStore) -> None:
    answer = Answer(
        (
            Segment("tool_call", '{"a": 1}', "g"),
            Segment("tool_call", '{"input": "*** patch"}', "patch"),
        ),
        generation.FINISH_REASON_TOOL_CALLS,
    )
    fields: dict[str, Any] = {
        "tools": [
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "g"}]},
            {"type": "custom", "name": "patch"},
        ]
    }
    dialect, decoded = decoding.responses(store, **fields)

    events = legal.sse(stream(dialect, decoded, answer, events_of(answer, [5] * 20)))
    call, custom = events[-1][1]["response"]["output"]

    assert ("function_call", "agents", '{"a": 1}') == (
        call["type"],
        call["namespace"],
        call["arguments"],
    )
    assert ("custom_tool_call", "*** patch") == (custom["type"], custom["input"])
    deltas = [p["delta"] for name, p in events if name == "response.custom_tool_call_input.delta"]
    assert ["*** patch"] == deltas


def test_allowed_tools_narrow_the_choice(store: ResponsesStore) -> None:
    wish = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    chat = request_of(store, tools=[TOOL, TOOL | {"name": "g"}], tool_choice=wish).chat

    assert ["g"] == [one.name for one in chat.tools]
    assert "required" == chat.tool_choice.WhichOneof("mode")
