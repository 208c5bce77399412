from services.agent.endpoints import messages
from services.agent.endpoints.endpoint import ModelRequest
from tests.unit.agent.endpoints.conversation import ASK, HISTORY


def test_messages_requests():
    body = messages.request(ASK)

    assert ["user", "assistant", "user"] == [m["role"] for m in body["messages"]]
    assert ["text", "text", "image"] == [b["type"] for b in body["messages"][0]["content"]]
    assert ["thinking", "text", "tool_use", "tool_use"] == [
        b["type"] for b in body["messages"][1]["content"]
    ]
    assert [False, True] == [b["is_error"] for b in body["messages"][2]["content"]]
    assert 8192 == messages.request(ModelRequest("m", "s", HISTORY))["max_tokens"]
