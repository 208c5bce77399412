"""Input items as canonical turns."""

from __future__ import annotations

from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.conversations import PIXEL, parts
from tests.unit.gateway.dialects.openai_responses.bodies import conversed, request_of


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "input_brand_new"},
    ],
)
def test_a_part_that_is_not_read_is_named(store: ResponsesStore, part: dict[str, Any]) -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": "What?"}, part]}

    with pytest.raises(FleetError) as refused:
        conversed(store, message)

    assert refused.value.reason is Reason.UNSUPPORTED_FIELD
    assert refused.value.field == "input.0.content.1.type"
    assert part["type"] in refused.value.message


def test_every_input_shape(store: ResponsesStore) -> None:
    found = conversed(
        store,
        {"role": "user", "content": "bare"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "t"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
            ],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "so", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x"},
        {"type": "local_shell_call", "call_id": "c3", "action": {"command": ["ls"]}},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "ok"}],
        },
        {"type": "local_shell_call_output", "call_id": "c3", "output": "README"},
        instructions="be brief",
    )

    roles = [conversation.Role.Name(one.role).removeprefix("ROLE_") for one in found]
    assert ["SYSTEM", "USER", "SYSTEM", "USER", "ASSISTANT", "TOOL", "TOOL", "TOOL"] == roles
    assert ["text", "image"] == [kind for kind, _ in parts(found[3])]
    assistant = parts(found[4])
    assert ["reasoning", "text", "tool_call", "tool_call", "tool_call"] == [k for k, _ in assistant]
    assert '{"input":"x"}' == assistant[3][1].arguments_json
    assert '{"command":["ls"]}' == assistant[4][1].arguments_json
    assert ["f", "patch", "local_shell"] == [one.parts[0].tool_result.name for one in found[5:]]


def test_a_probe_with_empty_input_is_served(store: ResponsesStore) -> None:
    assert 1 == request_of(store, input="", max_output_tokens=1).stop.max_tokens


def test_instructions_may_come_as_items(store: ResponsesStore) -> None:
    first, second = conversed(
        store, *decoding.HELLO, instructions=[{"role": "developer", "content": "be brief"}]
    )

    assert [("text", "be brief")] == parts(first)
    assert conversation.ROLE_USER == second.role
