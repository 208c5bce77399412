"""One request, written in every dialect, means the same: roles, turns, tools, limits, shape."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from services.gateway.dialects.ollama.routes import OllamaChat
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding


@dataclasses.dataclass(frozen=True)
class Call:
    call_id: str
    name: str
    arguments: dict[str, Any]
    result: str


@dataclasses.dataclass(frozen=True)
class Turn:
    """What the user says, and what the assistant answers: text, calls, or both."""

    said: str
    answer: str
    calls: tuple[Call, ...]


@dataclasses.dataclass(frozen=True)
class WantedModel:
    system: str
    turns: tuple[Turn, ...]
    last: str
    tools: tuple[str, ...]
    choice: str
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    schema: dict[str, Any] | None


_WORDS = st.text('abc é😀\n"\\', min_size=1, max_size=8)
_SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
_CALL = st.builds(
    Call, st.just(""), st.sampled_from(("f", "g")), st.dictionaries(_WORDS, _WORDS), _WORDS
)
_TURN = st.builds(Turn, _WORDS, _WORDS, st.lists(_CALL, max_size=2).map(tuple))


def _numbered(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(
        dataclasses.replace(
            turn,
            calls=tuple(
                dataclasses.replace(call, call_id=f"call_{t}_{c}")
                for c, call in enumerate(turn.calls)
            ),
        )
        for t, turn in enumerate(turns)
    )


WANTED = st.builds(
    WantedModel,
    st.sampled_from(("", "be brief")),
    st.lists(_TURN, max_size=3).map(tuple).map(_numbered),
    _WORDS,
    st.just(("f", "g")),
    st.sampled_from(("auto", "none", "required", "f")),
    st.integers(1, 9000),
    st.floats(0, 1),
    st.lists(st.sampled_from(("x", "y")), max_size=2, unique=True).map(tuple),
    st.none() | st.just(_SCHEMA),
)


def chat(wanted: WantedModel) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if wanted.system:
        messages.append({"role": "system", "content": wanted.system})
    for turn in wanted.turns:
        messages.append({"role": "user", "content": turn.said})
        calls = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in turn.calls
        ]
        messages.append(
            {"role": "assistant", "content": turn.answer} | ({"tool_calls": calls} if calls else {})
        )
        messages += [
            {"role": "tool", "tool_call_id": call.call_id, "content": call.result}
            for call in turn.calls
        ]
    messages.append({"role": "user", "content": wanted.last})
    body: dict[str, Any] = {
        "model": "m",
        "messages": messages,
        "tools": [
            {"type": "function", "function": {"name": name, "parameters": _SCHEMA}}
            for name in wanted.tools
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}}
        if wanted.choice == "f"
        else wanted.choice,
        "max_completion_tokens": wanted.max_tokens,
        "temperature": wanted.temperature,
        "stop": list(wanted.stop),
    }
    if wanted.schema:
        shape = {"name": "s", "schema": wanted.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return body


def messages(wanted: WantedModel) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for turn in wanted.turns:
        said = [*results, {"type": "text", "text": turn.said}]
        found.append({"role": "user", "content": said})
        blocks: list[dict[str, Any]] = [{"type": "text", "text": turn.answer}]
        blocks += [
            {"type": "tool_use", "id": call.call_id, "name": call.name, "input": call.arguments}
            for call in turn.calls
        ]
        found.append({"role": "assistant", "content": blocks})
        results = [
            {"type": "tool_result", "tool_use_id": call.call_id, "content": call.result}
            for call in turn.calls
        ]
    found.append({"role": "user", "content": [*results, {"type": "text", "text": wanted.last}]})
    choice = {"required": {"type": "any"}, "f": {"type": "tool", "name": "f"}}
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": wanted.max_tokens,
        "messages": found,
        "tools": [{"name": name, "input_schema": _SCHEMA} for name in wanted.tools],
        "tool_choice": choice.get(wanted.choice, {"type": wanted.choice}),
        "temperature": wanted.temperature,
        "stop_sequences": list(wanted.stop),
    }
    if wanted.system:
        body["system"] = wanted.system
    if wanted.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}}
    return body


def responses(wanted: WantedModel) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for turn in wanted.turns:
        items.append({"role": "user", "content": turn.said})
        items.append(
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": turn.answer}],
            }
        )
        items += [
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": json.dumps(call.arguments),
            }
            for call in turn.calls
        ]
        items += [
            {"type": "function_call_output", "call_id": call.call_id, "output": call.result}
            for call in turn.calls
        ]
    items.append({"role": "user", "content": [{"type": "input_text", "text": wanted.last}]})
    body: dict[str, Any] = {
        "model": "m",
        "input": items,
        "tools": [
            {"type": "function", "name": name, "parameters": _SCHEMA} for name in wanted.tools
        ],
        "tool_choice": {"type": "function", "name": "f"} if wanted.choice == "f" else wanted.choice,
        "max_output_tokens": wanted.max_tokens,
        "temperature": wanted.temperature,
        "stop": list(wanted.stop),
    }
    if wanted.system:
        body["instructions"] = wanted.system
    if wanted.schema:
        shape = {"type": "json_schema", "name": "s", "schema": wanted.schema}
        body["text"] = {"format": shape}
    return body


def ollama(wanted: WantedModel) -> dict[str, Any]:
    found = chat(wanted)
    for message in found["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return {
        "model": "m",
        "messages": found["messages"],
        "tools": found["tools"],
        "format": wanted.schema,
        "options": {
            "temperature": wanted.temperature,
            "num_predict": wanted.max_tokens,
            "stop": list(wanted.stop),
        },
    }


def meaning(request: generation.GenerateRequest, *, choice: bool = True) -> dict[str, Any]:
    """What a model would be told: JSON compared as JSON."""
    chat = request.chat
    return {
        "turns": [(one.role, [_part(part) for part in one.parts]) for one in chat.messages],
        "tools": [(one.name, json.loads(one.parameters_schema_json)) for one in chat.tools],
        "choice": str(chat.tool_choice) if choice else None,
        "limit": request.stop.max_tokens,
        "stop": list(request.stop.stop_strings),
        "temperature": request.sampling.temperature,
        "schema": json.loads(request.constraint.json_schema or "null"),
    }


def _part(part: conversation.Part) -> Any:
    match part.WhichOneof("kind"):
        case "tool_call":
            call = part.tool_call
            return call.call_id, call.name, json.loads(call.arguments_json)
        case "tool_result":
            result = part.tool_result
            return result.call_id, result.name, [_part(one) for one in result.parts]
        case _:
            return part.text


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(WANTED)
def test_a_request_means_the_same_in_every_dialect(
    shared_store: ResponsesStore, wanted: WantedModel
) -> None:
    (one,) = decoding.decode(OpenAIChat(), chat(wanted)).requests
    (two,) = decoding.decode(AnthropicMessages(), messages(wanted)).requests
    (three,) = decoding.decode(OpenAIResponses(shared_store), responses(wanted)).requests
    (four,) = decoding.decode(OllamaChat(), ollama(wanted)).requests

    assert meaning(one) == meaning(two)
    assert meaning(one) == meaning(three)
    # the Ollama API has no tool_choice
    assert meaning(one, choice=False) == meaning(four, choice=False)
