"""What an Anthropic messages body means, and how a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from services.gateway.dialects.anthropic_messages import decode
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD
from tests.unit.gateway.dialects.anthropic_messages.bodies import (
    BOTH,
    TOOL,
    body_of,
    chat_of,
    refusal,
    refusal_with,
    request_of,
    valid_body,
)
from tests.unit.gateway.dialects.conversations import parts


def test_the_assistants_last_turn_is_continued() -> None:
    begun = [*decoding.HELLO, {"role": "assistant", "content": "The answer is ("}]

    assert request_of(messages=begun).chat.continue_final_message
    assert not request_of().chat.continue_final_message


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, generation.Reasoning(enabled=False)),
        ({"thinking": {"type": "disabled"}}, generation.Reasoning(enabled=False)),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, generation.Reasoning()),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            generation.Reasoning(effort=generation.REASONING_EFFORT_HIGH),
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 50}},
            generation.Reasoning(enabled=True, budget_tokens=50),
        ),
        (
            # qwen-code: as much as it has
            {"thinking": {"type": "enabled", "budget_tokens": 100}, "max_tokens": 100},
            generation.Reasoning(enabled=True, budget_tokens=75),
        ),
    ],
)
def test_thinking(fields: dict[str, Any], wanted: generation.Reasoning) -> None:
    assert wanted == request_of(**fields).reasoning


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_the_answers_shape(place: str) -> None:
    wish: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object"}}
    fields = {place: {"format": wish} if place == "output_config" else wish}

    assert '{"type": "object"}' == request_of(**fields).constraint.json_schema


def test_sampling_and_stop() -> None:
    found = request_of(
        temperature=1, top_p=0.5, top_k=3, stop_sequences=["x"], max_tokens=32_000, stream=None
    )

    assert (1, 0.5, 3) == (found.sampling.temperature, found.sampling.top_p, found.sampling.top_k)
    assert (32_000, ["x"]) == (found.stop.max_tokens, list(found.stop.stop_strings))


def test_any_beta_is_accepted() -> None:
    body = body_of(safeguards=[{"type": "x"}], brand_new_field=1)
    body["messages"] = [
        {"role": "user", "content": [{"type": "brand_new", "text": "t"}, {"type": "other_new"}]}
    ]

    found = decoding.decode(AnthropicMessages(), body, **{"anthropic-beta": "brand-new-2026-11-01"})

    assert [("text", "t")] == parts(found.requests[0].chat.messages[0])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m", "messages": decoding.HELLO}, "max_tokens"),
        (body_of(max_tokens=-1), "max_tokens"),
        (body_of(messages=[]), "messages"),
        (body_of(messages=[{"role": "tool", "content": "x"}]), "messages.0.role"),
        (body_of(messages=[{"role": "user"}]), "messages.0.content"),
        (body_of(messages=[{"role": "user", "content": None}]), "messages.0.content"),
        (
            body_of(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages.0.content.0.text",
        ),
        (
            body_of(messages=[{"role": "user", "content": [{"type": "brand_new"}]}]),
            "messages.0.content.0.type",
        ),
        (
            body_of(
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
                        ],
                    }
                ]
            ),
            "messages.0.content.0.source.url",
        ),
        (
            body_of(
                messages=[
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "input": {}}]}
                ]
            ),
            "messages.0.content.0.name",
        ),
        (body_of(tools=[{"type": "web_search_20250305", "name": "w"}]), "tools.0.type"),
        (body_of(tools=[{"name": "f", "input_schema": []}]), "tools.0.input_schema"),
        (body_of(tool_choice={"type": "any"}), "tool_choice"),
        (body_of(tool_choice={"type": "tool", "name": "g"}, tools=[TOOL]), "tool_choice.name"),
        (body_of(thinking={"type": "deep"}), "thinking.type"),
        (body_of(output_config={"format": {"type": "xml"}}), "output_config.format.type"),
        (body_of(stop_sequences=[""]), "stop_sequences.0"),
        (body_of(stop_sequences=["a", "b" * 1025]), "stop_sequences.1"),
        (body_of(mcp_servers=[{"url": "x"}]), "mcp_servers"),
        (body_of(frobnicate=1), "frobnicate"),
    ],
)
def test_a_bad_field_is_named(body: dict[str, Any], field: str) -> None:
    assert field == refusal(body).field


@pytest.mark.parametrize("name", ["min_p", "seed", "mirostat", "frequency_penalty"])
def test_a_sampling_field_is_never_dropped(name: str) -> None:
    error = refusal(body_of(**{name: 0.5}), **{"anthropic-beta": "any"})

    assert (Reason.UNSUPPORTED_FIELD, name) == (error.reason, error.field)


def test_an_unknown_field_is_refused_in_the_apis_words() -> None:
    assert "frobnicate: Extra inputs are not permitted" == refusal(body_of(frobnicate=1)).message


def test_counting_takes_what_generating_takes() -> None:
    body = json.dumps(body_of(tools=[TOOL], system="s", temperature=1, metadata={})).encode()

    found = decode.decode_count(body, HEAD).request

    assert "m" == found.model
    assert 2 == len(found.chat.messages)
    assert 1 == len(found.chat.tools)


_DOCUMENT = {"type": "document", "source": {"type": "text", "data": "x"}}


_RESULT = {"type": "search_result", "title": "t", "source": "s", "content": []}


_CITED = {"citations": {"enabled": True}}


_AT: Any = "messages.0.content.0"


@BOTH
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"container": "c"}, "container"),
        ({"container": {"skills": []}}, "container"),
        ({"output_config": {"task_budget": {"type": "tokens"}}}, "output_config.task_budget"),
        ({"output_config": {"effort": "enormous"}}, "output_config.effort"),
        (
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "output_format",
        ),
        (
            {"tools": [{"name": "f", "allowed_callers": ["code_execution_20250825"]}]},
            "tools.0.allowed_callers",
        ),
        ({"content": [_DOCUMENT | _CITED]}, f"{_AT}.citations.enabled"),
        ({"content": [_RESULT | _CITED]}, f"{_AT}.citations.enabled"),
        ({"content": [{"type": "container_upload", "file_id": "f"}]}, f"{_AT}.type"),
    ],
)
def test_what_nobody_here_can_do_is_refused(
    fields: dict[str, Any], field: str, headers: dict[str, str]
) -> None:
    """Beta or not: a field that is known is never passed over as one that is not."""
    more = {key: value for key, value in fields.items() if key != "content"}
    if "content" in fields:
        more["messages"] = [{"role": "user", "content": fields["content"]}]

    error = refusal_with(valid_body(**more), headers)

    assert error.reason in {Reason.BAD_REQUEST, Reason.UNSUPPORTED_FIELD}
    assert error.field == field


def test_what_is_off_is_no_wish() -> None:
    uncited = _DOCUMENT | {"citations": {"enabled": False}}
    found = chat_of(
        messages=[{"role": "user", "content": [uncited, _RESULT | {"citations": {}}]}],
        tools=[{"name": "f", "allowed_callers": ["code_execution_20250825", "direct"]}],
        container=None,
        output_config={"task_budget": None},
    )

    assert [one.name for one in found.tools] == ["f"]
