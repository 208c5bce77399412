"""What an Anthropic messages body means, and how a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.anthropic_messages import decode
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from services.gateway.dialects.common import signature
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.openai_chat.test_decode import PIXEL, parts

TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}


def request_of(**fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.messages(**fields)
    return decoded.requests[0]


def conversed(*messages: dict[str, Any], **fields: Any) -> list[conversation.Message]:
    return list(request_of(messages=list(messages), **fields).chat.messages)


def refusal(body: dict[str, Any], **headers: str) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(AnthropicMessages(), body, **headers)
    return raised.value


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": decoding.HELLO} | fields


@pytest.mark.parametrize(
    "system",
    [
        "be brief",
        [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.572;"},
            {"type": "text", "text": "be brief"},
        ],
    ],
)
def test_the_system_prompt_comes_first(system: Any) -> None:
    first, second = conversed(*decoding.HELLO, system=system)

    assert (conversation.ROLE_SYSTEM, [("text", "be brief")]) == (first.role, parts(first))
    assert conversation.ROLE_USER == second.role


@pytest.mark.parametrize("system", [None, "", []])
def test_nothing_is_injected_where_there_is_no_system_prompt(system: Any) -> None:
    assert [conversation.ROLE_USER] == [m.role for m in conversed(*decoding.HELLO, system=system)]


def test_a_system_turn_keeps_its_place() -> None:
    found = conversed(
        *decoding.HELLO, {"role": "system", "content": [{"type": "text", "text": "s"}]}
    )

    assert [conversation.ROLE_USER, conversation.ROLE_SYSTEM] == [one.role for one in found]


def test_tool_results_come_before_what_the_user_says() -> None:
    found = conversed(
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "so"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "and now"},
                {"type": "tool_result", "tool_use_id": "t1", "content": "ok", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [
                        {"type": "text", "text": "a"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                        },
                    ],
                },
            ],
        },
    )
    assistant, first, second, said = found[1:]

    assert ["reasoning", "text", "tool_call", "tool_call"] == [kind for kind, _ in parts(assistant)]
    assert "sig" == assistant.parts[0].reasoning.signature
    assert '{"a":1}' == assistant.parts[2].tool_call.arguments_json
    one, two = first.parts[0].tool_result, second.parts[0].tool_result
    assert ("t1", "f", True) == (one.call_id, one.name, one.is_error)
    assert ("t2", "g", False) == (two.call_id, two.name, two.is_error)
    assert "image/png" == two.parts[1].image.mime_type
    assert (conversation.ROLE_USER, [("text", "and now")]) == (said.role, parts(said))


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}, {"content": ""}])
def test_a_tool_may_have_returned_nothing(content: dict[str, Any]) -> None:
    block = {"type": "tool_result", "tool_use_id": "t"} | content
    (found,) = conversed({"role": "user", "content": [block]})

    assert "".join(p.text for p in found.parts[0].tool_result.parts) == ""


def test_the_assistants_last_turn_is_continued() -> None:
    begun = [*decoding.HELLO, {"role": "assistant", "content": "The answer is ("}]

    assert request_of(messages=begun).chat.continue_final_message
    assert not request_of().chat.continue_final_message


@pytest.mark.parametrize(
    ("choice", "mode", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "f"}, "named", None),
        ({"type": "none"}, "none", None),
    ],
)
def test_tools_are_reshaped(choice: dict[str, Any], mode: str, parallel: bool | None) -> None:
    chat = request_of(tools=[TOOL], tool_choice=choice).chat

    assert json.loads(chat.tools[0].parameters_schema_json) == TOOL["input_schema"]
    assert mode == chat.tool_choice.WhichOneof("mode")
    assert parallel == (chat.parallel_tool_calls if chat.HasField("parallel_tool_calls") else None)


def test_no_tools_may_be_sent_as_an_empty_list() -> None:
    assert not request_of(tools=[], tool_choice={"type": "auto"}).chat.tools


def test_the_apis_own_client_tools_get_their_schemas() -> None:
    tools = request_of(
        tools=[
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "tool_search_tool_regex_20251119", "name": "tool_search"},
        ]
    ).chat.tools

    assert ["bash", "str_replace_based_edit_tool"] == [one.name for one in tools]
    assert "command" in json.loads(tools[0].parameters_schema_json)["properties"]


def test_tools_change_in_mid_conversation() -> None:
    added = {"type": "tool_definition", "definition": {"name": "h", "input_schema": {"a": 1}}}
    turn = {
        "role": "system",
        "content": [
            {"type": "tool_addition", "tool": added},
            {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}},
        ],
    }
    tools = request_of(messages=[*decoding.HELLO, turn], tools=[TOOL]).chat.tools

    assert [("h", '{"a":1}')] == [(one.name, one.parameters_schema_json) for one in tools]


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


def test_an_omitted_thought_comes_back_in_its_signature() -> None:
    answer = Answer((Segment("reasoning", "secret 😀"), Segment("text", "hi")))
    dialect, decoded = decoding.messages(thinking={"type": "adaptive", "display": "omitted"})

    told = stream(dialect, decoded, answer, events_of(answer, [2] * 9))
    body = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))

    assert "" == legal.messages(told).reasoning
    thinking = body["content"][0]
    assert "" == thinking["thinking"]
    _, again = conversed(*decoding.HELLO, {"role": "assistant", "content": body["content"]})
    assert "secret 😀" == again.parts[0].reasoning.text


def test_a_shown_thought_is_signed_briefly() -> None:
    assert len(signature.sign("x" * 10_000, carry=False)) < 60
    assert signature.thought_in(signature.sign("x", carry=False)) is None


@pytest.mark.parametrize("found", ["cortex1.!!!", "cortex1.aGk=", "foreign", ""])
def test_a_foreign_signature_holds_no_thought(found: str) -> None:
    assert signature.thought_in(found) is None


def test_any_beta_is_accepted() -> None:
    body = _body(safeguards=[{"type": "x"}], brand_new_field=1)
    body["messages"] = [
        {"role": "user", "content": [{"type": "brand_new", "text": "t"}, {"type": "other_new"}]}
    ]

    found = decoding.decode(AnthropicMessages(), body, **{"anthropic-beta": "brand-new-2026-11-01"})

    assert [("text", "t")] == parts(found.requests[0].chat.messages[0])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m", "messages": decoding.HELLO}, "max_tokens"),
        (_body(max_tokens=-1), "max_tokens"),
        (_body(messages=[]), "messages"),
        (_body(messages=[{"role": "tool", "content": "x"}]), "messages.0.role"),
        (_body(messages=[{"role": "user"}]), "messages.0.content"),
        (_body(messages=[{"role": "user", "content": None}]), "messages.0.content"),
        (
            _body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages.0.content.0.text",
        ),
        (
            _body(messages=[{"role": "user", "content": [{"type": "brand_new"}]}]),
            "messages.0.content.0.type",
        ),
        (
            _body(
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
            _body(
                messages=[
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "input": {}}]}
                ]
            ),
            "messages.0.content.0.name",
        ),
        (_body(tools=[{"type": "web_search_20250305", "name": "w"}]), "tools.0.type"),
        (_body(tools=[{"name": "f", "input_schema": []}]), "tools.0.input_schema"),
        (_body(tool_choice={"type": "any"}), "tool_choice"),
        (_body(tool_choice={"type": "tool", "name": "g"}, tools=[TOOL]), "tool_choice.name"),
        (_body(thinking={"type": "deep"}), "thinking.type"),
        (_body(output_config={"format": {"type": "xml"}}), "output_config.format.type"),
        (_body(stop_sequences=[""]), "stop_sequences.0"),
        (_body(mcp_servers=[{"url": "x"}]), "mcp_servers"),
        (_body(frobnicate=1), "frobnicate"),
    ],
)
def test_a_bad_field_is_named(body: dict[str, Any], field: str) -> None:
    assert field == refusal(body).field


@pytest.mark.parametrize("name", ["min_p", "seed", "mirostat", "frequency_penalty"])
def test_a_sampling_field_is_never_dropped(name: str) -> None:
    error = refusal(_body(**{name: 0.5}), **{"anthropic-beta": "any"})

    assert (Reason.UNSUPPORTED_FIELD, name) == (error.reason, error.field)


def test_an_unknown_field_is_refused_in_the_apis_words() -> None:
    assert "frobnicate: Extra inputs are not permitted" == refusal(_body(frobnicate=1)).message


def test_counting_takes_what_generating_takes() -> None:
    body = json.dumps(_body(tools=[TOOL], system="s", temperature=1, metadata={})).encode()

    found = decode.decode_count(body, HEAD).request

    assert "m" == found.model
    assert 2 == len(found.chat.messages)
    assert 1 == len(found.chat.tools)


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (
            {
                "type": "document",
                "title": "T",
                "source": {"type": "text", "media_type": "text/plain", "data": "body"},
            },
            ["T", "body"],
        ),
        ({"type": "document", "source": {"type": "content", "content": "body"}}, ["body"]),
        (
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "body"}]},
            },
            ["body"],
        ),
        (
            {
                "type": "search_result",
                "title": "T",
                "source": "https://x",
                "content": [{"type": "text", "text": "found"}],
            },
            ["T\nhttps://x", "found"],
        ),
        ({"type": "tool_reference", "tool_name": "f"}, ["f"]),
        (
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            ['[server_tool_use] {"name":"web_search","input":{"query":"q"}}'],
        ),
        (
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
            ['[web_search_tool_result] {"content":[{"url":"u"}]}'],
        ),
    ],
)
def test_rare_blocks_are_told_as_text(block: dict[str, Any], wanted: list[str]) -> None:
    (found,) = conversed({"role": "user", "content": [block]})

    assert wanted == [part.text for part in found.parts]


def test_a_redacted_thought_of_somebody_elses_is_left_out() -> None:
    blocks = [{"type": "redacted_thinking", "data": "opaque"}, {"type": "text", "text": "hi"}]
    (found,) = conversed({"role": "assistant", "content": blocks})

    assert [("text", "hi")] == parts(found)


@pytest.mark.parametrize(
    ("role", "block", "field"),
    [
        ("user", {"type": "document", "source": {"type": "base64", "data": "x"}}, "source.type"),
        ("user", {"type": "document"}, "source"),
        ("user", {"type": "image"}, "source"),
        ("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}, "source.type"),
        (
            "user",
            {"type": "image", "source": {"type": "base64", "media_type": "text/html", "data": ""}},
            "source.data",
        ),
        (
            "user",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "!"}},
            "source.data",
        ),
        (
            "user",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}},
            "source.data",
        ),
        ("user", {"type": "tool_result"}, "tool_use_id"),
        ("user", {"type": "tool_result", "tool_use_id": "t", "content": [{}]}, "content.0.type"),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}, "type"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": [1]}, "input"),
    ],
)
def test_a_bad_block_is_refused(role: str, block: dict[str, Any], field: str) -> None:
    error = refusal(_body(messages=[{"role": role, "content": [block]}]))

    assert f"messages.0.content.0.{field}" == error.field


def test_arguments_that_are_no_object_are_kept() -> None:
    dialect, decoded = decoding.messages()
    answer = Answer((Segment("tool_call", '"Rome', "f"),), generation.FINISH_REASON_MAX_TOKENS)

    found = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))

    assert {"arguments": '"Rome'} == found["content"][0]["input"]
    assert "max_tokens" == found["stop_reason"]
