"""What holding messages against Anthropic's OpenAPI document has found: see tests/contract/openapi."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.anthropic_messages import decode, encode
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.openai_chat.test_decode import parts

BETA = dataclasses.replace(HEAD, query={"beta": "true"})
ANSWER = Answer(
    (
        Segment("reasoning", "hm"),
        Segment("text", "so"),
        Segment("tool_call", '{"a":1}', "run"),
    ),
    generation.FINISH_REASON_TOOL_CALLS,
)
BOTH = pytest.mark.parametrize("headers", [{}, {"anthropic-beta": "x"}], ids=["plain", "beta"])


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": decoding.HELLO} | fields


def chat(**fields: Any) -> conversation.Chat:
    return decoding.decode(AnthropicMessages(), body(**fields)).requests[0].chat


def refusal(found: dict[str, Any], headers: dict[str, str]) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(AnthropicMessages(), found, **headers)
    return raised.value


def said(*blocks: dict[str, Any]) -> list[conversation.Message]:
    return list(chat(messages=[{"role": "user", "content": list(blocks)}]).messages)


def test_nothing_is_generated_for_no_tokens() -> None:
    dialect = AnthropicMessages()
    decoded = decoding.decode(dialect, body(max_tokens=0))
    events = events_of(ANSWER)

    whole = json.loads(dialect.body(decoded, HEAD, [collect(ANSWER, events)]))
    streamed = legal.messages(stream(dialect, decoded, ANSWER, events, beats={0}, waits=1))

    assert decoded.requests[0].stop.max_tokens == 1, "an engine generates one at least"
    assert (whole["content"], whole["stop_reason"]) == ([], "max_tokens")
    assert (streamed.parts, streamed.finish) == ([], "max_tokens")
    assert whole["usage"]["output_tokens"] == streamed.usage["output_tokens"] == 0
    assert whole["usage"]["cache_read_input_tokens"] == 8


def test_the_beta_api_tells_more() -> None:
    dialect = AnthropicMessages()
    edits = {"edits": [{"type": "clear_thinking_20251015"}]}
    raw = json.dumps(body(context_management=edits, thinking={"type": "adaptive"})).encode()
    plain = dialect.decode(raw.replace(b'"context_management"', b'"metadata"'), HEAD)
    beta = dialect.decode(raw, BETA)
    collected = [collect(ANSWER, events_of(ANSWER))]

    short = json.loads(dialect.body(plain, HEAD, collected))
    long = json.loads(dialect.body(beta, BETA, collected))
    deltas = [
        payload["delta"]
        for name, payload in legal.sse(stream(dialect, beta, ANSWER, events_of(ANSWER)))
        if name == "content_block_delta"
    ]

    assert set(long) - set(short) == {"diagnostics", "context_management"}
    assert set(long["usage"]) - set(short["usage"]) == {"iterations", "speed"}
    assert long["context_management"] == {"applied_edits": []}
    assert deltas[0] == {"type": "thinking_delta", "estimated_tokens": None, "thinking": "hm"}


@pytest.mark.parametrize(("head", "edits_context", "wanted"), [
    (HEAD, True, {"input_tokens": 7}),
    (BETA, False, {"input_tokens": 7, "context_management": None}),
    (BETA, True, {"input_tokens": 7, "context_management": {"original_input_tokens": 7}}),
])  # fmt: skip
def test_a_count(head: Any, edits_context: bool, wanted: dict[str, Any]) -> None:
    assert json.loads(encode.count(7, head, edits_context=edits_context)) == wanted


def test_a_count_knows_of_edits() -> None:
    counted = body(context_management={"edits": []})

    assert decode.decode_count(json.dumps(counted).encode(), BETA).edits_context


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


@pytest.mark.parametrize(
    ("kind", "names", "lacks"),
    [
        ("bash_20250124", {"command"}, "path"),
        ("text_editor_20250124", {"command", "path", "undo_edit"}, "rename"),
        ("text_editor_20250728", {"command", "path"}, "undo_edit"),
        ("memory_20250818", {"command", "old_path", "rename"}, "undo_edit"),
        ("computer_20241022", {"action", "coordinate", "screenshot"}, "scroll"),
        ("computer_20250124", {"action", "scroll", "scroll_amount"}, "zoom"),
        ("computer_20251124", {"action", "zoom", "region"}, "undo_edit"),
    ],
)
def test_tools_that_the_client_runs(kind: str, names: set[str], lacks: str) -> None:
    sized = {"display_width_px": 800, "display_height_px": 600, "display_number": 1}
    extra = sized | {"enable_zoom": kind.endswith("1124")} if "computer" in kind else {}
    (tool,) = chat(tools=[{"type": kind, "name": "t", "strict": True, **extra}]).tools

    schema = json.loads(tool.parameters_schema_json)
    words = tool.parameters_schema_json
    assert all(f'"{name}"' in words for name in names)
    assert f'"{lacks}"' not in words
    assert set(schema.get("required", ())) <= set(schema["properties"])
    assert tool.strict
    assert ("800 by 600" in tool.description) == ("computer" in kind)


def test_examples_of_a_tools_input_are_described() -> None:
    made = {"name": "f", "input_schema": {}, "input_examples": [{"a": 1}, {"a": 2}]}
    (tool,) = chat(tools=[made | {"description": "Does."}]).tools
    (bare,) = chat(tools=[made]).tools

    examples = 'Example of the input: {"a":1}\nExample of the input: {"a":2}'
    assert (tool.description, bare.description) == (f"Does.\n{examples}", examples)


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

    error = refusal(body(**more), headers)

    assert error.reason in {Reason.BAD_REQUEST, Reason.UNSUPPORTED_FIELD}
    assert error.field == field


def test_what_is_off_is_no_wish() -> None:
    uncited = _DOCUMENT | {"citations": {"enabled": False}}
    found = chat(
        messages=[{"role": "user", "content": [uncited, _RESULT | {"citations": {}}]}],
        tools=[{"name": "f", "allowed_callers": ["code_execution_20250825", "direct"]}],
        container=None,
        output_config={"task_budget": None},
    )

    assert [one.name for one in found.tools] == ["f"]
