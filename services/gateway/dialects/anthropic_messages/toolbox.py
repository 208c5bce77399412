"""Tool definitions and tool choice of a messages request, in canonical form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.anthropic_messages import client_tools
from services.gateway.dialects.anthropic_messages.fields import (
    PromptFields,
    ToolChoice,
    ToolDefinition,
)
from services.gateway.dialects.common import tools
from services.gateway.dialects.common.json_body import (
    BodyReader,
    FieldRules,
    bad,
    encode,
    encode_text,
    unsupported,
)
from services.gateway.dialects.common.json_schema import schema_text

# Finds tools for the model; here every tool is shown from the start.
_SEARCH: Final = "tool_search_tool_"


_DEFINITION: Final = BodyReader(ToolDefinition, FieldRules(ignored=frozenset()))


def tools_of(wire: PromptFields) -> Sequence[conversation.Tool]:
    """The tools that are offered at the end of the conversation.

    Claude Code adds and removes tools with blocks within the conversation.

    Raises:
        FleetError: UNSUPPORTED_FIELD for a tool that the API would run itself.
    """
    found: list[conversation.Tool] = []
    for index, one in enumerate(wire.tools or ()):
        found += _tool(one, f"tools.{index}")
    by_name = {one.name: one for one in tools.distinct(found)}
    offered = dict(by_name)
    for change, name, definition in _changes(wire):
        if definition is not None:
            by_name |= {one.name: one for one in _tool(definition, "messages")}
        if change == "tool_removal":
            offered.pop(name, None)
        elif name in by_name:
            offered[name] = by_name[name]
    return list(offered.values())


def _changes(wire: PromptFields) -> Iterator[tuple[str, str, ToolDefinition | None]]:
    for one in wire.messages:
        for block in () if isinstance(one.content, str) else one.content:
            if block.type in {"tool_addition", "tool_removal"} and isinstance(block.tool, dict):
                yield (block.type, *_changed(block.tool))


def _changed(tool: dict[str, Any]) -> tuple[str, ToolDefinition | None]:
    definition = tool.get("definition")
    if isinstance(definition, dict):
        read: ToolDefinition = _DEFINITION.read(encode(definition))
        return read.name, read
    return str(tool.get("name") or tool.get("tool_name") or ""), None


def _tool(one: ToolDefinition, path: str) -> list[conversation.Tool]:
    kind = one.type or "custom"
    if kind.startswith(_SEARCH):
        return []
    if kind == "custom":
        description, schema = one.description, schema_text(one.input_schema, f"{path}.input_schema")
    else:
        known = client_tools.described(one)
        if known is None:
            raise unsupported(
                f"{path}.type", f"{kind!r} would run on the server; there is none here."
            )
        description, schema = known.description, encode(known.schema).decode()
    if one.allowed_callers is not None and "direct" not in one.allowed_callers:
        raise unsupported(
            f"{path}.allowed_callers", "no code is run here that could call a tool; add 'direct'."
        )
    return [
        tools.tool(
            one.name,
            path=path,
            description=_with_examples(description or "", one.input_examples),
            schema=schema,
            strict=one.strict,
        )
    ]


def _with_examples(description: str, examples: Sequence[Any] | None) -> str:
    """No template has a place for examples of a tool's input; its description has."""
    told = [f"Example of the input: {encode_text(one)}" for one in examples or ()]
    return "\n".join([description, *told] if description else told)


def choice_of(
    wish: ToolChoice | None, offered: Sequence[conversation.Tool]
) -> conversation.ToolChoice | None:
    """How the tools may be used."""
    match wish.type if wish else None:
        case None:
            return None
        case "auto":
            return tools.auto() if offered else None
        case "none":
            return tools.none()
        case "any":
            return tools.required(offered, path="tool_choice")
        case "tool":
            name = (wish.name if wish else None) or ""
            return tools.named(name, offered, path="tool_choice.name")
        case other:
            raise bad("tool_choice.type", f"{other!r} is none of auto, any, tool, none.")


def parallel(wish: ToolChoice | None) -> bool | None:
    """Whether several calls may come at once; None leaves it to the model."""
    if wish is None or wish.disable_parallel_tool_use is None:
        return None
    return not wish.disable_parallel_tool_use
