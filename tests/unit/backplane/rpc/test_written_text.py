import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.rpc.written_text import written_characters


def chat(role: conversation.Role.ValueType, part: conversation.Part) -> generation.GenerateRequest:
    message = conversation.Message(role=role, parts=[part])
    return generation.GenerateRequest(chat=conversation.Chat(messages=[message]))


TEXT = conversation.Part(text=" four\n")
TOLD = conversation.Part(
    tool_result=conversation.ToolResult(parts=[conversation.Part(text="fourteen words")])
)


@pytest.mark.parametrize(
    ("request_", "characters"),
    [
        pytest.param(chat(conversation.ROLE_USER, TEXT), 4, id="user"),
        pytest.param(chat(conversation.ROLE_SYSTEM, TEXT), 4, id="system"),
        pytest.param(chat(conversation.ROLE_TOOL, TOLD), 14, id="tool"),
        pytest.param(chat(conversation.ROLE_ASSISTANT, TEXT), 0, id="answer"),
        pytest.param(generation.GenerateRequest(text=" raw\n"), 5, id="raw"),
        pytest.param(generation.GenerateRequest(), 0, id="nothing"),
    ],
)
def test_what_a_prompt_surely_has(request_: generation.GenerateRequest, characters: int) -> None:
    assert written_characters(request_) == characters
