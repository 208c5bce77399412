"""Tools that the API defines and the client runs: their schemas are not on the wire.

Source: Anthropic API reference: bash, text editor, memory and computer use tool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from services.gateway.dialects.anthropic_messages.fields import ToolDefinition


class ToolDescription(NamedTuple):
    """Description and JSON schema of a tool, as a model is given them."""

    description: str
    schema: Mapping[str, Any]


def described(one: ToolDefinition) -> ToolDescription | None:
    """Description and schema of a tool that the API defines by a dated name (`bash_20250124`).

    Returns:
        None for a tool that no client runs.
    """
    family, _, date = (one.type or "").rpartition("_")
    make = _FAMILIES.get(family)
    return make(one, date) if make else None


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


_STRING: Final = MappingProxyType({"type": "string"})
_INTEGER: Final = MappingProxyType({"type": "integer"})
_RANGE: Final = MappingProxyType(
    {"type": "array", "items": {"type": "integer"}, "description": "First and last line, from 1."}
)
_EDITS: Final = {
    "path": dict(_STRING),
    "file_text": dict(_STRING),
    "old_str": dict(_STRING),
    "new_str": dict(_STRING),
    "insert_line": dict(_INTEGER),
    "insert_text": dict(_STRING),
    "view_range": dict(_RANGE),
}


def _bash(_: ToolDefinition, __: str) -> ToolDescription:
    return ToolDescription(
        "Runs a command in a persistent bash session.",
        {
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command to run."},
                "restart": {"type": "boolean", "description": "Starts the session anew."},
            },
        },
    )


def _text_editor(_: ToolDefinition, date: str) -> ToolDescription:
    commands = ["view", "create", "str_replace", "insert"]
    if date < "20250429":
        commands.append("undo_edit")
    schema = _object(["command", "path"], command={"type": "string", "enum": commands}, **_EDITS)
    return ToolDescription("Views, creates and edits text files.", schema)


def _memory(_: ToolDefinition, __: str) -> ToolDescription:
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    paths = {"old_path": dict(_STRING), "new_path": dict(_STRING)}
    return ToolDescription(
        "Keeps notes in files under /memories, which outlive the conversation.",
        _object(["command"], command={"type": "string", "enum": commands}, **_EDITS, **paths),
    )


_FIRST_ACTIONS: Final = (
    "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click",
    "double_click", "screenshot", "cursor_position",
)  # fmt: skip
_MORE_ACTIONS: Final = (
    "left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click",
)  # fmt: skip
_POINT: Final = MappingProxyType(
    {"type": "array", "items": {"type": "integer"}, "description": "x and y in pixels."}
)


def _computer(one: ToolDefinition, date: str) -> ToolDescription:
    actions = [*_FIRST_ACTIONS, *(_MORE_ACTIONS if date >= "20250124" else ())]
    more: dict[str, Any] = {}
    if date >= "20250124":
        more = {
            "start_coordinate": dict(_POINT),
            "scroll_direction": {"type": "string", "enum": ["up", "down", "left", "right"]},
            "scroll_amount": dict(_INTEGER),
            "duration": {"type": "number", "description": "Seconds."},
        }
    if one.enable_zoom:
        actions.append("zoom")
        more["region"] = {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Left, top, right and bottom in pixels.",
        }
    size = f"{one.display_width_px} by {one.display_height_px} pixels"
    display = "" if one.display_number is None else f", display {one.display_number}"
    return ToolDescription(
        f"Sees and operates a screen of {size}{display} by mouse and keyboard.",
        _object(
            ["action"],
            action={"type": "string", "enum": actions},
            coordinate=dict(_POINT),
            text={"type": "string", "description": "What to type, or the keys to press."},
            **more,
        ),
    )


_FAMILIES: Final[Mapping[str, Callable[[ToolDefinition, str], ToolDescription]]] = MappingProxyType(
    {"bash": _bash, "text_editor": _text_editor, "memory": _memory, "computer": _computer}
)
