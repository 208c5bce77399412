"""Tools and tool choice of a responses request.

Functions are offered to the model; custom tools as functions of one text; namespaces are flattened.
Tools that the API would run itself (`web_search`, …) are ignored: clients always send them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common import tools
from services.gateway.dialects.common.json_body import bad, convert, encode_text, unsupported
from services.gateway.dialects.common.json_schema import without_nulls

_ONE_TEXT: Final = (
    '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],'
    '"additionalProperties":false}'
)


class TypedTool(msgspec.Struct):
    """The type of a tool, or of a choice among tools; chat nests the rest in `function`."""

    type: str
    function: dict[str, Any] | None = None


class NamedTool(msgspec.Struct):
    """A tool that is chosen by its name."""

    name: str


class ToolFields(NamedTool):
    """A tool; which fields count depends on its type."""

    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: list[dict[str, Any]] | None = None


class AllowedTool(msgspec.Struct):
    """A tool that may be called; those that run on a server have no name."""

    name: str | None = None


class AllowedTools(msgspec.Struct):
    """A choice among some of the tools."""

    mode: str | None = None
    tools: list[AllowedTool] | None = None


@dataclasses.dataclass(slots=True)
class Toolbox:
    """The tools that are offered, and how calls of them are returned.

    Attributes:
        offered: in canonical form.
        custom: names whose calls are `custom_tool_call` items.
        namespaces: the namespace of each name that has one.
        choice: how they may be used.
    """

    offered: list[conversation.Tool] = dataclasses.field(default_factory=list[conversation.Tool])
    custom: set[str] = dataclasses.field(default_factory=set[str])
    namespaces: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    choice: conversation.ToolChoice | None = None

    def add(self, one: dict[str, Any], path: str, namespace: str | None = None) -> None:
        """Offers one tool, or ignores it."""
        typed = convert(one, TypedTool, path)
        kind = typed.type
        if kind not in {"function", "custom", "namespace"}:
            return
        fields = convert(one if typed.function is None else typed.function, ToolFields, path)
        if kind == "function":
            self._function(fields, path, namespace)
        elif kind == "custom":
            self.custom.add(fields.name)
            self._offer(fields, path, _ONE_TEXT)
        else:
            for index, member in enumerate(fields.tools or ()):
                self.add(member, f"{path}.tools.{index}", fields.name)

    def _function(self, fields: ToolFields, path: str, namespace: str | None) -> None:
        if namespace is not None:
            if any(known.name == fields.name for known in self.offered):
                return  # two namespaces may share a name; the first keeps it
            self.namespaces[fields.name] = namespace
        schema = without_nulls(encode_text(fields.parameters)) if fields.parameters else ""
        self._offer(fields, path, schema)

    def _offer(self, fields: ToolFields, path: str, schema: str) -> None:
        self.offered.append(
            tools.tool(
                fields.name,
                path=path,
                description=fields.description,
                schema=schema,
                strict=fields.strict,
            )
        )


def toolbox_of(found: list[dict[str, Any]] | None, wish: str | dict[str, Any] | None) -> Toolbox:
    """Reads tools and choice.

    Raises:
        FleetError: with the path of what cannot be read or done.
    """
    box = Toolbox()
    for index, one in enumerate(found or ()):
        box.add(one, f"tools.{index}")
    tools.distinct(box.offered)
    if isinstance(wish, dict):
        _choose(box, wish)
    elif wish is not None:
        box.choice = _mode(box, wish, "tool_choice")
    return box


def _mode(box: Toolbox, wish: str, path: str) -> conversation.ToolChoice | None:
    match wish:
        case "auto":
            return tools.auto() if box.offered else None
        case "none":
            return tools.none()
        case "required":
            return tools.required(box.offered, path=path)
        case _:
            raise bad(path, f"{wish!r} is none of auto, none, required.")


def _choose(box: Toolbox, wish: dict[str, Any]) -> None:
    typed = convert(wish, TypedTool, "tool_choice")
    if typed.type in {"function", "custom"}:
        fields = wish if typed.function is None else typed.function
        name = convert(fields, NamedTool, "tool_choice").name
        box.choice = tools.named(name, box.offered, path="tool_choice.name")
    elif typed.type == "allowed_tools":
        narrowed = convert(wish, AllowedTools, "tool_choice")
        allowed = {one.name for one in narrowed.tools or ()}
        box.offered = [one for one in box.offered if one.name in allowed]
        box.choice = _mode(box, narrowed.mode or "auto", "tool_choice.mode")
    else:
        raise unsupported("tool_choice.type", f"no tool of type {typed.type!r} can be called here.")
