"""Makes tools and tool choices in canonical form, with the checks that all dialects need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common.json_body import bad

_ANY_ARGUMENTS: Final = '{"type":"object","properties":{}}'
_LONGEST_NAME: Final = 256


def tool(
    name: str, *, path: str, description: str | None, schema: str, strict: bool | None = None
) -> conversation.Tool:
    """A tool; without a schema it takes any object.

    Raises:
        FleetError: BAD_REQUEST for a name that is empty or far too long.
    """
    if not name or len(name) > _LONGEST_NAME:
        raise bad(f"{path}.name", f"must have 1 to {_LONGEST_NAME} characters.")
    return conversation.Tool(
        name=name,
        description=description or "",
        parameters_schema_json=schema or _ANY_ARGUMENTS,
        strict=bool(strict),
    )


def distinct(tools: Sequence[conversation.Tool]) -> Sequence[conversation.Tool]:
    """Returns the tools, if no two have the same name.

    Raises:
        FleetError: BAD_REQUEST where two have.
    """
    seen: set[str] = set()
    for one in tools:
        if one.name in seen:
            raise bad("tools", f"names must be unique; {one.name!r} comes twice.")
        seen.add(one.name)
    return tools


def auto() -> conversation.ToolChoice:
    """The model decides."""
    return conversation.ToolChoice(auto=conversation.AutoTool())


def none() -> conversation.ToolChoice:
    """No tool may be called."""
    return conversation.ToolChoice(none=conversation.NoTool())


def required(tools: Sequence[conversation.Tool], *, path: str) -> conversation.ToolChoice:
    """Some tool must be called.

    Raises:
        FleetError: BAD_REQUEST where there is none.
    """
    if not tools:
        raise bad(path, "a tool call is required but there are no tools.")
    return conversation.ToolChoice(required=conversation.RequiredTool())


def named(name: str, tools: Iterable[conversation.Tool], *, path: str) -> conversation.ToolChoice:
    """One tool must be called.

    Raises:
        FleetError: BAD_REQUEST where there is no tool of that name.
    """
    if all(one.name != name for one in tools):
        raise bad(path, f"there is no tool called {name!r}.")
    return conversation.ToolChoice(named=name)
