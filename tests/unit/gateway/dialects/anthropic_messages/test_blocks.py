"""Content blocks as canonical turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common import signature
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.anthropic_messages.bodies import body_of, conversed, refusal, said
from tests.unit.gateway.dialects.conversations import PIXEL, parts


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
    error = refusal(body_of(messages=[{"role": role, "content": [block]}]))

    assert f"messages.0.content.0.{field}" == error.field


def test_system_blocks_keep_their_place() -> None:
    found = said(
        {"type": "text", "text": "a"},
        {"type": "mid_conv_system", "content": [{"type": "text", "text": "now brief"}]},
        {"type": "text", "text": "b"},
    )

    assert [(one.role, parts(one)) for one in found] == [
        (conversation.ROLE_USER, [("text", "a")]),
        (conversation.ROLE_SYSTEM, [("text", "now brief")]),
        (conversation.ROLE_USER, [("text", "b")]),
    ]


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"type": "compaction", "content": "so far"}, ["so far"]),
        ({"type": "compaction", "content": None}, []),
        (
            {
                "type": "mcp_tool_use",
                "id": "m",
                "server_name": "s",
                "name": "f",
                "input": {"a": 1},
            },
            ['[mcp_tool_use] {"server":"s","name":"f","input":{"a":1}}'],
        ),
        (
            {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": True, "content": "no"},
            ['[mcp_tool_result] {"is_error":true,"content":"no"}'],
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": [{"url": "u", "encrypted_content": "x" * 999}],
            },
            ['[web_search_tool_result] {"content":[{"url":"u"}]}'],
        ),
    ],
)
def test_what_other_servers_did(block: dict[str, Any], told: list[str]) -> None:
    (found,) = said(block)

    assert [part.text for part in found.parts] == told
