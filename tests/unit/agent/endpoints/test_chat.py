import json
from types import SimpleNamespace
from typing import Any

from services.agent.core.history import (
    TextPart,
    UserTurn,
)
from services.agent.endpoints import chat
from services.agent.endpoints.chat import ChatReader
from services.agent.endpoints.endpoint import (
    CallDelta,
    CallStarted,
    ModelRequest,
)
from tests.unit.agent.endpoints.conversation import ASK, HISTORY


def test_chat_requests():
    body = chat.request(ASK)

    assert 99 == body["max_tokens"]
    assert ["system", "user", "assistant", "tool", "tool"] == [m["role"] for m in body["messages"]]
    user, assistant = body["messages"][1:3]
    assert ["one", "two"] == [part.get("text") for part in user["content"]][:2]
    assert "data:image/png;base64,aGk=" == user["content"][2]["image_url"]["url"]
    assert ['{"command": "ls"}', "{}"] == [
        call["function"]["arguments"] for call in assistant["tool_calls"]
    ]
    assert "ha" == assistant["reasoning_content"]


def test_reasoning_of_earlier_prompts_is_not_sent_again():
    body = chat.request(ModelRequest("m", "s", [*HISTORY, UserTurn((TextPart("next"),))]))

    assert "reasoning_content" not in body["messages"][2]
    assert "tools" not in body


def test_parallel_calls_that_share_an_index_are_told_apart_by_their_ids():
    def chunk(call_id: str | None, name: str | None, arguments: str) -> Any:
        function = SimpleNamespace(name=name, arguments=arguments)
        call = SimpleNamespace(index=0, id=call_id, function=function)
        delta = SimpleNamespace(content=None, refusal=None, tool_calls=[call])
        choice = SimpleNamespace(delta=delta, finish_reason=None)
        return SimpleNamespace(usage=None, choices=[choice])

    reading = ChatReader()
    chunks = [chunk("a", "bash", "{"), chunk(None, None, "}"), chunk("b", "grep", json.dumps({}))]

    events = [event for each in chunks for event in reading.events(each)]

    assert [
        CallStarted(0, "a", "bash"), CallDelta(0, "{"), CallDelta(0, "}"),
        CallStarted(1, "b", "grep"), CallDelta(1, "{}"),
    ] == events  # fmt: skip
