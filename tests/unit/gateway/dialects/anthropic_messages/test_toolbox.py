"""Tools of messages requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.anthropic_messages.bodies import TOOL, chat_of, request_of


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
    (tool,) = chat_of(tools=[{"type": kind, "name": "t", "strict": True, **extra}]).tools

    schema = json.loads(tool.parameters_schema_json)
    words = tool.parameters_schema_json
    assert all(f'"{name}"' in words for name in names)
    assert f'"{lacks}"' not in words
    assert set(schema.get("required", ())) <= set(schema["properties"])
    assert tool.strict
    assert ("800 by 600" in tool.description) == ("computer" in kind)


def test_examples_of_a_tools_input_are_described() -> None:
    made = {"name": "f", "input_schema": {}, "input_examples": [{"a": 1}, {"a": 2}]}
    (tool,) = chat_of(tools=[made | {"description": "Does."}]).tools
    (bare,) = chat_of(tools=[made]).tools

    examples = 'Example of the input: {"a":1}\nExample of the input: {"a":2}'
    assert (tool.description, bare.description) == (f"Does.\n{examples}", examples)
