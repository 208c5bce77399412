import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import ModelInfo
from services.neuron.serving.least_tokens import refuse_endless_chat, refuse_endless_text

Role = conversation.Role


def info(longest_token: int) -> ModelInfo:
    return ModelInfo("e", "a", 10, 1, 1, 10, 300, longest_token=longest_token)


def chat(text: str, role: Role.ValueType = conversation.ROLE_USER) -> conversation.Chat:
    part = conversation.Part(text=text)
    return conversation.Chat(messages=[conversation.Message(role=role, parts=[part])])


def test_a_chat_whose_texts_cannot_fit_is_refused_with_numbers() -> None:
    refuse_endless_chat(info(4), chat("x" * 43), 10)

    with pytest.raises(FleetError) as caught:
        refuse_endless_chat(info(4), chat("x" * 44), 10)

    assert caught.value.reason is Reason.CONTEXT_TOO_LONG
    assert caught.value.facts == {
        "prompt_tokens": "11",
        "max_context_tokens": "10",
        "prompt_tokens_is_minimum": "true",
    }


def test_what_a_tool_has_told_counts() -> None:
    result = conversation.ToolResult(parts=[conversation.Part(text="x" * 44)])
    message = conversation.Message(
        role=conversation.ROLE_TOOL, parts=[conversation.Part(tool_result=result)]
    )

    with pytest.raises(FleetError):
        refuse_endless_chat(info(4), conversation.Chat(messages=[message]), 10)


@pytest.mark.parametrize(
    "spared",
    [
        pytest.param(chat("x" * 99, conversation.ROLE_ASSISTANT), id="an answer, of which"),
        pytest.param(chat(" " * 99), id="blanks, which"),
    ],
)
def test_what_a_template_may_leave_out_is_no_reason(spared: conversation.Chat) -> None:
    refuse_endless_chat(info(4), spared, 10)


def test_nothing_is_refused_where_nothing_is_certain() -> None:
    refuse_endless_chat(info(0), chat("x" * 999), 10)
    refuse_endless_text(info(0), "x" * 999, 10)


def test_a_text_that_cannot_fit_is_refused() -> None:
    refuse_endless_text(info(4), "x" * 43, 10)

    with pytest.raises(FleetError):
        refuse_endless_text(info(4), "x" * 44, 10)
