"""Chat messages as canonical turns."""

from __future__ import annotations

from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.conversations import PIXEL, parts
from tests.unit.gateway.dialects.openai_chat.bodies import TOOL, request_of


def test_a_conversation_of_an_agent() -> None:
    found = request_of(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        tools=[TOOL],
    ).chat
    system, user, assistant, tool = found.messages

    assert (conversation.ROLE_SYSTEM, [("text", "be brief")]) == (system.role, parts(system))
    assert ("ann", [("text", "hi")]) == (user.name, parts(user))
    assert ["reasoning", "tool_call"] == [kind for kind, _ in parts(assistant)]
    assert '{"a": 1}' == assistant.parts[1].tool_call.arguments_json
    assert conversation.ROLE_TOOL == tool.role
    assert ("c1", "f") == (tool.parts[0].tool_result.call_id, tool.parts[0].tool_result.name)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": []},
    ],
)
def test_an_assistant_may_have_said_nothing(message: dict[str, Any]) -> None:
    found = request_of(messages=[*decoding.HELLO, message])

    assert [] == parts(found.chat.messages[1])


def test_arguments_may_come_as_an_object() -> None:
    called = {"id": "c", "function": {"name": "f", "arguments": {"a": [1]}}}
    found = request_of(messages=[{"role": "assistant", "tool_calls": [called]}])

    assert '{"a":[1]}' == found.chat.messages[0].parts[0].tool_call.arguments_json


def test_a_picture_comes_as_a_data_url() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    content = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    image = (
        request_of(messages=[{"role": "user", "content": content}]).chat.messages[0].parts[0].image
    )

    assert "image/png" == image.mime_type
    assert image.data.startswith(b"\x89PNG")


def test_an_answer_may_be_continued() -> None:
    messages = [*decoding.HELLO, {"role": "assistant", "content": "I"}]

    assert request_of(messages=messages, continue_final_message=True).chat.continue_final_message
    assert not request_of(messages=messages).chat.continue_final_message


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_echoed_reasoning_is_read(field: str) -> None:
    found = request_of(messages=[{"role": "assistant", "content": "a", field: "hm"}])

    assert "hm" == found.chat.messages[0].parts[0].reasoning.text


def test_a_refusal_is_text() -> None:
    found = request_of(
        messages=[
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
        ]
    ).chat.messages

    assert [[("text", "no")], [("text", "never")]] == [parts(one) for one in found]
