"""Arguments that a model writes as bare text, made JSON by the tool's schema."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any


def coerce(text: str, schema: Mapping[str, Any]) -> Any:
    """The value that the text means under a schema; the text itself where it means nothing else.

    Args:
        text: as the model wrote it, without quotes of its own.
        schema: JSON Schema of the argument; empty where it is not known.
    """
    kinds = schema.get("type", ())
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    if wanted == {"string"} or (not wanted and "enum" in schema):
        return text
    bare = text.strip()
    for read in (json.loads, ast.literal_eval):
        try:
            value: Any = read(bare)
            dumps(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if not wanted or _is(value, wanted):
            return value
    if "boolean" in wanted and bare.lower() in {"true", "false"}:
        return bare.lower() == "true"
    if "null" in wanted and bare.lower() in {"null", "none"}:
        return None
    return text


def opened(text: str, schema: Mapping[str, Any]) -> str:
    """The beginning of a value's JSON, where its end is missing: never JSON that looks whole."""
    kinds = schema.get("type", "string")
    return dumps(text)[:-1] if "string" in kinds else text.lstrip()


def _is(value: Any, wanted: set[str]) -> bool:
    match value:
        case bool():
            return "boolean" in wanted
        case int():
            return bool(wanted & {"integer", "number"})
        case float():
            return "number" in wanted or ("integer" in wanted and value.is_integer())
        case str():
            return "string" in wanted
        case list() | tuple():
            return "array" in wanted
        case dict():
            return "object" in wanted
        case None:
            return "null" in wanted
        case _:
            return False


def dumps(value: Any) -> str:
    """JSON as models write it: no escapes beyond need.

    Raises:
        ValueError: Python can spell the value, JSON cannot.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can spell
        return json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return text
