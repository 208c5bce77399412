"""Of which types a value may be, and which schema a property has. Pure."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from services.neuron.chat.schemas.document import Schema, SchemaDocument, is_impossible, regular

TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
# Schemas refer to one another without end; nobody's are deeper.
_DEEPEST: Final = 32


def type_of(value: Any) -> str:
    """The narrowest type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def kinds(schema: Any, document: SchemaDocument) -> frozenset[str]:
    """The types that a value may have; all of `TYPES` where the schema does not say.

    Args:
        schema: of the value.
        document: where its references lead.
    """
    return _kinds(schema, document, {}, 0)


def _kinds(
    schema: Any, document: SchemaDocument, known: dict[int, frozenset[str]], depth: int
) -> frozenset[str]:
    if id(schema) in known or depth > _DEEPEST:
        return known.get(id(schema), TYPES)
    known[id(schema)] = TYPES  # as long as it is not known better: it may be its own part
    own = regular(schema)
    found = frozenset[str]() if is_impossible(schema) else own_kinds(own)
    for key in ("anyOf", "oneOf"):
        if own.get(key):
            found &= frozenset().union(
                *(_kinds(one, document, known, depth + 1) for one in own[key])
            )
    for part in own.get("allOf", ()):
        found &= _kinds(part, document, known, depth + 1)
    if "$ref" in own:
        with contextlib.suppress(LookupError):
            found &= _kinds(document.resolve(own["$ref"]), document, known, depth + 1)
    known[id(schema)] = found
    return found


def own_kinds(own: Schema) -> frozenset[str]:
    """The types that a schema's own keywords allow, without those inside."""
    named = own.get("type")
    wanted: list[Any] = named if isinstance(named, list) else [named]
    found = frozenset(one for one in wanted if isinstance(one, str)) & TYPES or TYPES
    if "number" in found:
        found |= {"integer"}
    if own.get("enum"):
        found &= frozenset(map(type_of, own["enum"]))
    if "const" in own:
        found &= {type_of(own["const"])}
    return found


def property_schema(document: SchemaDocument, key: str) -> Any:
    """The schema of one property of a document's root; None where nothing is said of it."""
    found: list[Any] = []
    waiting: list[Any] = [document.root]
    seen: set[int] = set()
    while waiting:
        schema = waiting.pop(0)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        own = regular(schema)
        if key in own.get("properties", {}):
            found.append(own["properties"][key])
            continue
        waiting += (part for name in ("allOf", "anyOf", "oneOf") for part in own.get(name, ()))
        if "$ref" in own:
            with contextlib.suppress(LookupError):
                waiting.append(document.resolve(own["$ref"]))
        if isinstance(own.get("additionalProperties"), dict):
            found.append(own["additionalProperties"])
    if len(found) > 1:
        return {"anyOf": found}
    return found[0] if found else None
