"""Ollama's chat and generate bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.ollama.decode import keep_alive
from services.gateway.dialects.ollama.routes import OllamaGenerate
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of
from tests.unit.gateway.dialects.conversations import PIXEL, parts


def test_an_ollama_chat() -> None:
    _, decoded = decoding.ollama(
        model="m:latest",
        messages=[
            {"role": "system", "content": "s"},
            {"role": "user", "content": "look", "images": [PIXEL]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "42", "tool_name": "f"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        format={"type": "object"},
        think="low",
        keep_alive="5m",
        options={
            "temperature": 0.5,
            "num_predict": -1,
            "stop": ["x"],
            "num_ctx": 4096,
            "repeat_last_n": 64,
            "seed": 3,
        },
    )
    (request,) = decoded.requests
    _, user, assistant, tool = request.chat.messages

    assert ("m", True, 300) == (decoded.model, decoded.stream, decoded.keep_alive_seconds)
    assert "image/png" == user.parts[1].image.mime_type
    assert ["reasoning", "tool_call"] == [kind for kind, _ in parts(assistant)]
    call, result = assistant.parts[1].tool_call, tool.parts[0].tool_result
    assert (call.call_id, "f") == (result.call_id, result.name)
    assert (0.5, 3) == (request.sampling.temperature, request.sampling.seed)
    assert not request.stop.HasField("max_tokens")
    assert '{"type": "object"}' == request.constraint.json_schema
    assert generation.REASONING_EFFORT_LOW == request.reasoning.effort


def test_an_ollama_prompt() -> None:
    dialect = OllamaGenerate()
    body = {"model": "m", "prompt": "p", "system": "s", "format": "json", "stream": False}
    decoded = decoding.decode(dialect, body)

    assert [conversation.ROLE_SYSTEM, conversation.ROLE_USER] == [
        one.role for one in decoded.requests[0].chat.messages
    ]
    assert "json_object" == decoded.requests[0].constraint.WhichOneof("kind")
    assert not decoded.stream
    raw = decoding.decode(dialect, {"model": "m", "prompt": "p", "raw": True})
    assert "p" == raw.requests[0].text


@pytest.mark.parametrize(("keep", "reason"), [(None, "load"), (0, "unload")])
def test_an_empty_ollama_request_only_loads(keep: int | None, reason: str) -> None:
    dialect = OllamaGenerate()
    decoded = decoding.decode(dialect, {"model": "m", "keep_alive": keep})
    answer = Answer((Segment("text", "x"),), generation.FINISH_REASON_MAX_TOKENS)
    projector = dialect.projector(decoded, HEAD)

    told = projector.text(0, "x", 1) + projector.finish(0, answer.finished())
    body = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))

    assert 1 == decoded.requests[0].stop.max_tokens
    for found in (json.loads(told), body):
        assert ("", True, reason) == (found["response"], found["done"], found["done_reason"])


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (None, None),
        (0, 0),
        (30, 30),
        ("30", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (-1, 315_360_000),
        ("-1m", 315_360_000),
    ],
)
def test_keep_alive(found: Any, seconds: float | None) -> None:
    assert seconds == keep_alive(found)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"model": ""}, "model"),
        ({"format": "yaml"}, "format"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "images": ["!"]}]}, "messages.0.images.0"),
        ({"think": "enormous"}, "think"),
    ],
)
def test_a_bad_ollama_request_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.ollama(**fields)

    assert field == raised.value.field


@pytest.mark.parametrize("context", [[504, 6376], ["a"], 5, "x"])
def test_a_conversation_in_ids_is_never_dropped_in_silence(context: Any) -> None:
    body = {"model": "m", "prompt": "x", "context": context}

    with pytest.raises(FleetError) as caught:
        decoding.decode(OllamaGenerate(), body)

    assert (Reason.UNSUPPORTED_FIELD, "context") == (caught.value.reason, caught.value.field)
    assert "/api/chat" in caught.value.message


@pytest.mark.parametrize("context", [None, []])
def test_no_conversation_is_none(context: Any) -> None:
    decoded = decoding.decode(OllamaGenerate(), {"model": "m", "prompt": "x", "context": context})

    assert 1 == len(decoded.requests)
