"""JSON that clients and models wrote, as values that prompts can take. Pure."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str) -> Any:
    """The value of a JSON text, every string in it well formed.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        value: Any = json.loads(text)
        return _well_formed(value) if "\\u" in text else value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def well_formed(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which UTF-8 cannot spell.

    Halves that stand beside each other are joined.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _well_formed(value: Any) -> Any:
    match value:
        case str():
            return well_formed(value)
        case list():
            items: list[Any] = value
            return [_well_formed(item) for item in items]
        case dict():
            pairs: dict[str, Any] = value
            return {well_formed(key): _well_formed(item) for key, item in pairs.items()}
        case _:
            return value
