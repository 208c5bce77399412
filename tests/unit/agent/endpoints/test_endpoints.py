import pytest

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    TextPart,
    Thought,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.core.settings import AgentSettings, EndpointSettings
from services.agent.endpoints import chat, messages, responses
from services.agent.endpoints.endpoint import EndpointError, EndpointModel, ModelRequest, ToolSpec
from services.agent.endpoints.listing import model_info
from services.agent.endpoints.selection import Endpoints, UnknownModelError

HISTORY: list[Turn] = [
    UserTurn((TextPart("one"),)),
    AssistantTurn(),
    UserTurn((TextPart("two"), ImagePart("aGk=", "image/png"))),
    AssistantTurn(
        "Looking.",
        thoughts=(Thought("hm", "sealed", messages.DIALECT), Thought("ha", "", chat.DIALECT)),
        calls=(ToolCall("c1", "bash", {"command": "ls"}), ToolCall("c2", "bash", None, "{")),
    ),
    ResultsTurn((ToolResult("c1", "bash", "a.txt"), ToolResult("c2", "bash", "ERROR: x", True))),
]
ASK = ModelRequest("m", "system", HISTORY, [ToolSpec("bash", "Runs", {"type": "object"})], 99)


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


def test_responses_requests():
    body = responses.request(ASK)

    assert ["message", "message", "function_call", "function_call", "function_call_output",
            "function_call_output"] == [item["type"] for item in body["input"]]  # fmt: skip
    assert body["store"] is False
    assert ("system", 99) == (body["instructions"], body["max_output_tokens"])


def test_messages_requests():
    body = messages.request(ASK)

    assert ["user", "assistant", "user"] == [m["role"] for m in body["messages"]]
    assert ["text", "text", "image"] == [b["type"] for b in body["messages"][0]["content"]]
    assert ["thinking", "text", "tool_use", "tool_use"] == [
        b["type"] for b in body["messages"][1]["content"]
    ]
    assert [False, True] == [b["is_error"] for b in body["messages"][2]["content"]]
    assert 8192 == messages.request(ModelRequest("m", "s", HISTORY))["max_tokens"]


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({}, None),
        ({"max_model_len": 4096}, 4096),
        ({"limit": {"context": 8192}}, 8192),
        ({"meta": {"n_ctx": 2048}}, 2048),
        ({"max_model_len": 0, "context_length": 5}, 5),
        ({"max_model_len": "many", "limit": None}, None),
    ],
)
def test_windows_as_different_servers_list_them(fields: dict[str, object], window: int | None):
    assert EndpointModel("m", window) == model_info("m", fields)


@pytest.mark.parametrize(
    ("fields", "can_chat", "can_see"),
    [
        ({}, True, None),
        ({"capabilities": ["chat", "completion", "tools"]}, True, False),
        ({"capabilities": ["chat", "vision"]}, True, True),
        ({"capabilities": ["embedding"]}, False, None),
        ({"capabilities": ["completion", "multimodal"]}, True, True),
        ({"capabilities": ["completion"]}, True, None),
        ({"capabilities": {"completion_chat": False, "vision": False}}, False, False),
        ({"type": "embeddings"}, False, None),
        ({"architecture": {"input_modalities": ["text", "image"]}}, True, True),
        ({"architecture": {"input_modalities": ["text"]}}, True, False),
        ({"capabilities": "odd", "architecture": 7}, True, None),
    ],
)
def test_what_a_model_can_do_as_different_servers_list_it(
    fields: dict[str, object], can_chat: bool, can_see: bool | None
):
    found = model_info("m", fields)

    assert (can_chat, can_see) == (found.can_chat, found.can_see)


@pytest.mark.parametrize(
    ("error", "context", "tools"),
    [
        (EndpointError("x", status=400, code="context_length_exceeded"), True, False),
        (EndpointError("prompt is too long: 9 tokens > 8", status=400), True, False),
        (EndpointError("tools param requires --jinja", status=500), False, True),
        (EndpointError("x does not support tools", status=400), False, True),
        (EndpointError("No endpoints found that support tool use", status=404), False, True),
        (EndpointError("does not support parameters: ['tools']", status=400), False, True),
        (EndpointError("`tool calling` is not supported with this", status=400), False, True),
        (EndpointError("Unknown parameter: 'tools'.", status=400), False, True),
        (EndpointError("Unknown parameter: 'tools[0].x'.", status=400), False, False),
        (EndpointError("tool_call_id 'c1' answers no tool call", status=400), False, False),
        (EndpointError("Invalid schema for tool 'mcp__a'", status=422), False, False),
        (EndpointError("context length", status=503), False, False),
        (EndpointError("no tool here", status=401), False, False),
    ],
)
def test_refusals_are_understood(error: EndpointError, context: bool, tools: bool):
    assert (context, tools) == (error.is_context_exceeded, error.is_tools_refused)


class Listing:
    """An endpoint that lists models, or fails to."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.name = settings.name
        self.asked = 0

    async def models(self) -> list[EndpointModel]:
        self.asked += 1
        if self.name == "down":
            raise EndpointError("refused")
        return [
            EndpointModel("vectors", can_chat=False),
            EndpointModel(f"{self.name}-1", 1000, can_see=False),
            EndpointModel("b:c"),
        ]


def endpoints(*names: str, model: str = "", window: int | None = None) -> Endpoints:
    settings = AgentSettings(
        endpoints=tuple(
            EndpointSettings(name=name, model=model, context_window=window) for name in names
        )
    )
    return Endpoints(settings, connect=Listing, clock=lambda: 0.0)  # type: ignore[arg-type]


async def test_a_failing_endpoint_does_not_hide_the_others():
    assert ["a:a-1", "a:b:c"] == await endpoints("down", "a").selectors()


async def test_selectors():
    both = endpoints("a", "z")

    assert ("a", "a-1") == both_names(both, "a:a-1")
    assert ("z", "b:c") == both_names(both, "z:b:c")
    assert ("a", "llama3:8b") == both_names(both, "llama3:8b")
    assert ("a", "plain") == both_names(both, "plain")
    assert "a:a-1" == await both.default()
    assert "a:fixed" == await endpoints("a", model="fixed").default()
    selection = await both.select("")
    assert ("a:a-1", 1000) == (selection.selector, selection.context_window)
    assert selection.can_see is False
    assert (await both.select("a:unlisted")).context_window is None
    assert 5 == (await endpoints("a", window=5).select("a:a-1")).context_window


def both_names(these: Endpoints, selector: str) -> tuple[str, str]:
    settings, model = these.settings_of(selector)
    return settings.name, model


async def test_no_model_anywhere_is_said_with_the_address():
    with pytest.raises(UnknownModelError, match=r"down \(http"):
        await endpoints("down").select("")
