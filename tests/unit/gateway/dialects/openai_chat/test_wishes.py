"""Tools, output shapes and reasoning wishes of chat requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from tests.unit.gateway.dialects.openai_chat.bodies import TOOL, body_of, refusal, request_of


def test_a_schema_keeps_the_order_of_its_keys() -> None:
    (tool,) = request_of(tools=[TOOL]).chat.tools

    assert ["z", "a"] == list(json.loads(tool.parameters_schema_json)["properties"])
    assert tool.strict


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, "named"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
            "required",
        ),
    ],
)
def test_tool_choice(choice: Any, mode: str) -> None:
    found = request_of(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False).chat

    assert mode == found.tool_choice.WhichOneof("mode")
    assert found.HasField("parallel_tool_calls")
    assert not found.parallel_tool_calls


def test_the_old_functions_are_tools() -> None:
    found = request_of(
        functions=[TOOL["function"]],
        function_call={"name": "f"},
        messages=[
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
    ).chat

    assert "f" == found.tool_choice.named
    assert "f" == found.messages[0].parts[0].tool_call.name
    assert "f" == found.messages[1].parts[0].tool_result.call_id


@pytest.mark.parametrize(
    ("fields", "kind", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "object"}},
                }
            },
            "json_schema",
            '{"type": "object"}',
        ),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a.", "b"]}, "regex", "a\\.|b"),
        ({"structured_outputs": {"json": {"type": "object"}}}, "json_schema", '{"type": "object"}'),
    ],
)
def test_output_shapes(fields: dict[str, Any], kind: str, value: str | None) -> None:
    found = request_of(**fields).constraint

    assert kind == found.WhichOneof("kind")
    assert value is None or value == getattr(found, kind)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"reasoning_effort": "none"}, generation.Reasoning(enabled=False)),
        (
            {"reasoning_effort": "low"},
            generation.Reasoning(enabled=True, effort=generation.REASONING_EFFORT_LOW),
        ),
        ({"chat_template_kwargs": {"enable_thinking": False}}, generation.Reasoning(enabled=False)),
        ({"thinking": {"type": "disabled"}}, generation.Reasoning(enabled=False)),
        (
            {"enable_thinking": True, "thinking_budget": 99},
            generation.Reasoning(enabled=True, budget_tokens=99),
        ),
    ],
)
def test_reasoning_wishes(fields: dict[str, Any], wanted: generation.Reasoning) -> None:
    assert wanted == request_of(**fields).reasoning


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [""]}, "guided_choice"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_grammar": ""}, "guided_grammar"),
        ({"guided_json": ""}, "guided_json"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": " "}}, "structured_outputs.json"),
    ],
)
def test_an_empty_constraint_is_refused_and_never_dropped(
    fields: dict[str, Any], field: str
) -> None:
    assert refusal(body_of(**fields)).field == field


def test_a_constraint_that_is_null_is_as_if_left_out() -> None:
    names = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")

    assert not request_of(**dict.fromkeys(names)).HasField("constraint")
