"""JSON Schemas in bodies, as text: just as the client wrote them, but for keywords that are null.

Typed clients (Go's, for one) write null where a list or map is empty. No keyword means anything by
it, and templates that walk over `properties` stumble.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.gateway.dialects.common.json_body import bad, encode_text, not_json

# Keywords that map names to schemas, that hold data instead of schemas, and that may hold null.
_MAPS: Final = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
_DATA: Final = frozenset({"const", "default", "example", "examples", "enum"})
_NULLABLE: Final = frozenset({"const", "default", "example"})


def schema_text(raw: msgspec.Raw, path: str) -> str:
    """A schema as text; empty where it is null or absent.

    Raises:
        FleetError: BAD_REQUEST where it is something else than an object or not UTF-8.
    """
    data = bytes(raw).strip()
    if data in {b"", b"null"}:
        return ""
    if not data.startswith(b"{"):
        raise bad(path, "Expected an object.")
    try:
        return without_nulls(data.decode())
    except (UnicodeDecodeError, msgspec.DecodeError) as broken:
        raise not_json(broken) from None


def without_nulls(schema: str) -> str:
    """A schema without the keywords that are null; a sub-schema that is null allows anything.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    if "null" not in schema:
        return schema
    return encode_text(_settled(msgspec.json.decode(schema)))


def _settled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_settled(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        keyword: _value(keyword, value)
        for keyword, value in schema.items()
        if value is not None or keyword in _NULLABLE
    }


def _value(keyword: str, value: Any) -> Any:
    if keyword in _DATA:
        return value
    if keyword in _MAPS and isinstance(value, dict):
        return {name: {} if one is None else _settled(one) for name, one in value.items()}
    return _settled(value)
