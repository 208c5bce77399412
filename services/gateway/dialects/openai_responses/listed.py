"""Completes input items for the store: they are listed with fields that clients may leave out.

Source: OpenAI's OpenAPI document, `ItemResource`.
"""

from __future__ import annotations

from typing import Any, Final

# What clients may leave out of an item that they send, and has to be there when it is listed.
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "message": {"status": "completed"},
    "function_call": {"status": "completed"},
    "function_call_output": {"status": "completed"},
    "custom_tool_call": {"status": "completed"},
    "custom_tool_call_output": {"status": "completed"},
    "reasoning": {"summary": []},
}
_PART_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "output_text": {"annotations": [], "logprobs": []},
    "input_image": {"detail": "auto"},
}
# Other APIs' names of parts, which are read as well.
_PART_NAMES: Final = {"text": "input_text", "image_url": "input_image"}


def listed_items(
    found: str | list[dict[str, Any]] | None, response_id: str
) -> list[dict[str, Any]]:
    """The input as items that can be listed: each with an id, a type and its defaults."""
    if found is None:
        return []
    items: list[dict[str, Any]] = (
        [{"role": "user", "content": found}] if isinstance(found, str) else found
    )
    suffix = response_id.removeprefix("resp_")
    return [_item(item, f"in_{suffix}_{index}") for index, item in enumerate(items)]


def _item(item: dict[str, Any], item_id: str) -> dict[str, Any]:
    made: dict[str, Any] = {"id": item_id}
    if "role" in item:
        made["type"] = "message"
    sent = {key: value for key, value in item.items() if value is not None}
    kind = sent.get("type", made.get("type"))
    # a kind that is no text is refused where it is read
    made |= _DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
    made |= sent
    if kind == "message":
        is_output = made.get("role") == "assistant"
        made["content"] = _content(made.get("content"), is_output=is_output)
    return made


def _content(content: Any, *, is_output: bool) -> Any:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return content
    return [
        _part(part, is_output=is_output) if isinstance(part, dict) else part for part in content
    ]


def _part(part: dict[str, Any], *, is_output: bool) -> dict[str, Any]:
    kind = part.get("type", "text")
    if not isinstance(kind, str):
        return part
    kind = "output_text" if kind == "text" and is_output else _PART_NAMES.get(kind, kind)
    return _PART_DEFAULTS.get(kind, {}) | part | {"type": kind}
