"""Tools, output constraint and reasoning of a chat request, in canonical form."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import tools
from services.gateway.dialects.common.json_body import bad, not_json, unsupported
from services.gateway.dialects.common.json_schema import schema_text
from services.gateway.dialects.openai_chat.fields import (
    ChatRequest,
    ChosenTool,
    Function,
    NamedFunction,
    ResponseFormat,
    StructuredOutputs,
    ToolDefinition,
)

_EFFORTS: Final[Mapping[str, generation.ReasoningEffort.ValueType]] = MappingProxyType(
    {
        "minimal": generation.REASONING_EFFORT_MINIMAL,
        "low": generation.REASONING_EFFORT_LOW,
        "medium": generation.REASONING_EFFORT_MEDIUM,
        "high": generation.REASONING_EFFORT_HIGH,
        "xhigh": generation.REASONING_EFFORT_HIGH,
        "max": generation.REASONING_EFFORT_HIGH,
    }
)

_reasoning_fields: Final = operator.attrgetter(
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "thinking_budget",
    "chat_template_kwargs",
)
_NOTHING_SAID: Final = (None,) * 6
_guided_fields: Final = operator.attrgetter("guided_regex", "guided_choice", "guided_grammar")


def tools_of(wire: ChatRequest) -> Sequence[conversation.Tool]:
    """All tools, the old `functions` among them.

    Raises:
        FleetError: UNSUPPORTED_FIELD for a tool that is no function, BAD_REQUEST for a broken one.
    """
    if wire.tools is None and wire.functions is None:
        return ()
    found = [_tool(one, f"tools.{index}") for index, one in enumerate(wire.tools or ())]
    for index, function in enumerate(wire.functions or ()):
        found.append(_function(function, f"functions.{index}"))
    return tools.distinct(found)


def _tool(one: ToolDefinition, path: str) -> conversation.Tool:
    if one.type != "function":
        raise unsupported(f"{path}.type", f"tools of type {one.type!r} are not supported.")
    if one.function is None:
        raise bad(f"{path}.function", "Field required.")
    return _function(one.function, f"{path}.function")


def _function(one: Function, path: str) -> conversation.Tool:
    return tools.tool(
        one.name,
        path=path,
        description=one.description,
        schema=schema_text(one.parameters, f"{path}.parameters"),
        strict=one.strict,
    )


def choose(
    wire: ChatRequest, offered: Sequence[conversation.Tool]
) -> tuple[Sequence[conversation.Tool], conversation.ToolChoice | None]:
    """The tools that may be called and how; `allowed_tools` narrows them."""
    wish = wire.tool_choice if wire.tool_choice is not None else wire.function_call
    path = "tool_choice" if wire.tool_choice is not None else "function_call"
    if wish is None:
        return offered, None
    if isinstance(wish, str):
        return offered, _mode(wish, offered, path)
    if isinstance(wish, NamedFunction):
        return offered, tools.named(wish.name, offered, path=f"{path}.name")
    return _chosen(wish, offered)


def _mode(
    wish: str, offered: Sequence[conversation.Tool], path: str
) -> conversation.ToolChoice | None:
    match wish:
        case "auto":
            return tools.auto() if offered else None
        case "none":
            return tools.none()
        case "required" | "any":
            return tools.required(offered, path=path)
        case _:
            raise bad(path, f"{wish!r} is none of auto, none, required.")


def _chosen(
    wish: ChosenTool, offered: Sequence[conversation.Tool]
) -> tuple[Sequence[conversation.Tool], conversation.ToolChoice | None]:
    if wish.type == "function" and wish.function is not None:
        name = wish.function.name
        return offered, tools.named(name, offered, path="tool_choice.function.name")
    if wish.type == "allowed_tools" and wish.allowed_tools is not None:
        allowed = {one.function.name for one in wish.allowed_tools.tools if one.function}
        kept = [one for one in offered if one.name in allowed]
        return kept, _mode(wish.allowed_tools.mode, kept, "tool_choice.allowed_tools.mode")
    raise bad("tool_choice", "Expected auto, none, required, a function or allowed_tools.")


def constraint_of(wire: ChatRequest) -> tuple[generation.OutputConstraint | None, str]:
    """The shape that the output must take, and the path of the field that asks for it."""
    if wire.response_format is not None:
        return response_format(wire.response_format), schema_field(wire.response_format)
    if wire.structured_outputs is not None:
        return _guided(wire.structured_outputs, "structured_outputs.")
    if not wire.guided_json and _guided_fields(wire) == (None,) * 3:
        return None, ""
    guided = StructuredOutputs(
        json=wire.guided_json,
        regex=wire.guided_regex,
        choice=wire.guided_choice,
        grammar=wire.guided_grammar,
    )
    return _guided(guided, "guided_")


def schema_field(wish: ResponseFormat) -> str:
    """The path of the schema in `response_format`, whichever of its places it has."""
    return "response_format.json_schema.schema" if wish.json_schema else "response_format.schema"


def response_format(wish: ResponseFormat) -> generation.OutputConstraint | None:
    """The shape that `response_format` asks for; None for plain text."""
    match wish.type:
        case "text":
            return None
        case "json_object":
            schema = schema_text(wish.schema, "response_format.schema")
            return _schema(schema) if schema else any_object()
        case "json_schema":
            inner = wish.json_schema.schema if wish.json_schema else wish.schema
            schema = schema_text(inner, "response_format.json_schema.schema")
            if not schema:
                raise bad("response_format.json_schema", "Field required.")
            return _schema(schema)
        case other:
            raise bad(
                "response_format.type", f"{other!r} is none of text, json_object, json_schema."
            )


def _guided(wish: StructuredOutputs, prefix: str) -> tuple[generation.OutputConstraint | None, str]:
    """Only null is as if it was left out: what is there and empty asks for nothing that can be."""
    if bytes(wish.json).strip() not in {b"", b"null"}:
        path = f"{prefix}json"
        return _schema(_present(_schema_text(wish.json, path), path)), path
    if wish.regex is not None:
        path = f"{prefix}regex"
        return generation.OutputConstraint(regex=_present(wish.regex, path)), path
    if wish.choice is not None:
        path = f"{prefix}choice"
        regex = "|".join(re.escape(one) for one in wish.choice)
        return generation.OutputConstraint(regex=_present(regex, path)), path
    if wish.grammar is not None:
        path = f"{prefix}grammar"
        return generation.OutputConstraint(grammar=_present(wish.grammar, path)), path
    return any_object() if wish.json_object else None, f"{prefix}json_object"


def _present(text: str, path: str) -> str:
    if not text:
        raise bad(path, "must not be empty.")
    return text


def _schema_text(raw: msgspec.Raw, path: str) -> str:
    """A schema as an object, or as text that holds one, as vLLM takes it."""
    if bytes(raw).lstrip().startswith(b'"'):
        try:
            text = msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError as broken:
            raise not_json(broken) from None
        if not text.strip():
            raise bad(path, "must not be empty.")
        raw = msgspec.Raw(text.encode())
    return schema_text(raw, path)


def _schema(schema: str) -> generation.OutputConstraint:
    return generation.OutputConstraint(json_schema=schema)


def any_object() -> generation.OutputConstraint:
    """Any JSON object."""
    return generation.OutputConstraint(json_object=generation.AnyJsonObject())


def effort_of(word: str, path: str) -> generation.ReasoningEffort.ValueType:
    """How hard to think.

    Raises:
        FleetError: BAD_REQUEST for a word that is none.
    """
    found = _EFFORTS.get(word)
    if found is None:
        raise bad(path, f"{word!r} is none of none, {', '.join(_EFFORTS)}.")
    return found


def reasoning_of(wire: ChatRequest) -> generation.Reasoning | None:
    """The reasoning wish, from whichever spelling was used; None leaves it to the model."""
    if _reasoning_fields(wire) == _NOTHING_SAID:
        return None
    wish = generation.Reasoning()
    _read_switches(wire, wish)
    effort = wire.reasoning_effort or (wire.reasoning.effort if wire.reasoning else None)
    if effort == "none":
        wish.enabled = False
    elif effort:
        wish.effort = effort_of(effort, "reasoning_effort")
        wish.enabled = True
    budget = _budget(wire)
    if budget is not None:
        wish.budget_tokens = budget
    return wish if wish.ByteSize() else None


def _read_switches(wire: ChatRequest, wish: generation.Reasoning) -> None:
    switches = wire.chat_template_kwargs or {}
    for value in (
        wire.enable_thinking,
        wire.reasoning.enabled if wire.reasoning else None,
        wire.thinking.type != "disabled" if wire.thinking else None,
        switches.get("enable_thinking"),
        switches.get("thinking"),
    ):
        if isinstance(value, bool):
            wish.enabled = value
            return


def _budget(wire: ChatRequest) -> int | None:
    for value in (
        wire.thinking_budget,
        wire.reasoning.max_tokens if wire.reasoning else None,
        wire.thinking.budget_tokens if wire.thinking else None,
    ):
        if value is not None:
            return min(value, 2**32 - 1)
    return None
