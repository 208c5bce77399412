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

_ONE_TEXT: Final = (
    '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],'
    '"additionalProperties":false}'
)


class ToolFields(msgspec.Struct):
    """A tool; which fields count depends on its type."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: list[dict[str, Any]] | None = None


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
        kind = one.get("type")
        if kind not in {"function", "custom", "namespace"}:
            return
        # chat's way of nesting a function is read too
        inner = one.get("function")
        fields = convert(inner if isinstance(inner, dict) else one, ToolFields, path)
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
        self._offer(fields, path, encode_text(fields.parameters) if fields.parameters else "")

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


def _mode(box: Toolbox, wish: Any, path: str) -> conversation.ToolChoice | None:
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
    kind = wish.get("type")
    if kind in {"function", "custom"}:
        inner = wish.get("function")
        name = convert(inner if isinstance(inner, dict) else wish, ToolFields, "tool_choice").name
        box.choice = tools.named(name, box.offered, path="tool_choice.name")
    elif kind == "allowed_tools":
        listed = convert(wish.get("tools") or [], list[dict[str, Any]], "tool_choice.tools")
        allowed = {one.get("name") for one in listed}
        box.offered = [one for one in box.offered if one.name in allowed]
        box.choice = _mode(box, wish.get("mode", "auto"), "tool_choice.mode")
    else:
        raise unsupported("tool_choice.type", f"no tool of type {kind!r} can be called here.")
