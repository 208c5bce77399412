"""What a Responses body means, chained and not, and how a bad one is refused."""

from __future__ import annotations

from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.gateway.dialects.openai_responses.routes import OpenAIResponses, new_response_id
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.openai_responses.bodies import TOOL, request_of


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"text": {"format": {"type": "text"}}}, None),
        ({"text": {"format": {"type": "json_object"}}}, "json_object"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"a": 1}}}},
            "json_schema",
        ),
    ],
)
def test_text_format(store: ResponsesStore, fields: dict[str, Any], kind: str | None) -> None:
    assert kind == request_of(store, **fields).constraint.WhichOneof("kind")


def test_logprobs_are_asked_for_by_include(store: ResponsesStore) -> None:
    found = request_of(store, include=["message.output_text.logprobs"], top_logprobs=2)

    assert 2 == found.top_logprobs
    assert not request_of(store).HasField("top_logprobs")


def test_ids_cannot_be_guessed() -> None:
    assert 100 == len({new_response_id() for _ in range(100)})
    assert len(new_response_id()) > 40


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input.0"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": 5}]}]}, "input.0.content.0.type"),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://x/y"}],
                    }
                ]
            },
            "input.0.content.0.image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input.0.content.0",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1_2"}]}, "input.0.id"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"background": True}, "stream"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "sometimes"}, "truncation"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "g"}, "tools": [TOOL]}, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"mirostat": 1}, "mirostat"),
        ({"frobnicate": 1}, "frobnicate"),
    ],
)
def test_a_bad_field_is_named(store: ResponsesStore, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.responses(store, **fields)

    assert field == raised.value.field


def test_a_response_in_the_background_has_to_be_stored(store: ResponsesStore) -> None:
    body = {"model": "m", "input": "hello", "background": True, "store": False}

    with pytest.raises(FleetError) as raised:
        decoding.decode(OpenAIResponses(store), body)

    assert "store" == raised.value.field


def test_effort_none_turns_reasoning_off(store: ResponsesStore) -> None:
    found = request_of(store, reasoning={"effort": "none"})

    assert found.reasoning.HasField("enabled")
    assert not found.reasoning.enabled
