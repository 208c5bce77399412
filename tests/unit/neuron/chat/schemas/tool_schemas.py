"""Schemas of tools as agents and MCP servers really have them, put together by a seed.

What generators write (zod 3 and 4, pydantic 1 and 2, invopop and kubernetes for Go, OpenAPI
converters, C#, Java, hand-written JSON) with the words changed: each fragment comes with a value
that satisfies it.
"""

import random
from typing import Any

S = {"type": "string"}
I = {"type": "integer"}  # noqa: E741 - as short as the table
N = {"type": "null"}


def closed(**properties):
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


POINT = closed(x={"type": "number"}, y={"type": "number"})
ITEM = {"type": "object", "properties": {"key": S, "amount": I}, "required": ["key"]}
TREE = {"type": "object", "properties": {"v": I, "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}, "required": ["v"]}  # fmt: skip
DEFS = {"Item": ITEM, "Colour": {"enum": ["red", "green"], "type": "string", "title": "Colour"}, "Tree": TREE, "Point": POINT, "Base": closed(id=S)}  # fmt: skip
# (schema, a value)
FRAGMENTS: list[tuple[Any, Any]] = [
    (S | {"description": "d"}, "word"),
    (S | {"minLength": 1, "maxLength": 40}, "word"),
    (S | {"maxLength": 200000}, "word"),
    (S | {"minLength": 1.0}, "word"),
    (S | {"enum": ["asc", "desc"], "default": "asc"}, "asc"),
    (S | {"enum": ["on", "off", None]}, "on"),
    (S | {"const": "fixed"}, "fixed"),
    (S | {"pattern": "^[a-z][a-z0-9-]*$"}, "a-1"),
    (S | {"pattern": r"^\d{4}-\d{2}-\d{2}$"}, "2024-02-03"),
    (S | {"pattern": r"^(?!.*\.\.)[\w./-]+$"}, "a/b.txt"),
    (S | {"pattern": r"^https?:\/\/"}, "https://a"),
    (S | {"pattern": r"(?<=\$)\d+"}, "$5"),
    (S | {"pattern": r"^\p{L}+$"}, "abc"),
    (S | {"pattern": "[["}, "x"),
    (S | {"pattern": r"^[^\s@]+@[^\s@]+$"}, "a@b"),
    (S | {"pattern": "^[0-9a-f]{8}\\Z"}, "0123abcd"),
    (S | {"format": "uri"}, "https://a.b/c"),
    (S | {"format": "date-time"}, "2024-02-03T04:05:06Z"),
    (S | {"format": "date"}, "2024-02-03"),
    (S | {"format": "email"}, "a@b.cd"),
    (S | {"format": "uuid"}, "123e4567-e89b-12d3-a456-426614174000"),
    (S | {"format": "path"}, "/a"),
    (S | {"format": "byte"}, "aa=="),
    (S | {"format": "cuid2"}, "abc"),
    (S | {"nullable": True}, "x"),
    (S | {"contentEncoding": "base64", "contentMediaType": "image/png"}, "aa"),
    (I | {"minimum": 1, "maximum": 100, "default": 10}, 5),
    (I | {"exclusiveMinimum": 0}, 3),
    (I | {"minimum": 0, "exclusiveMinimum": True}, 3),
    (I | {"format": "int64"}, 3),
    (I | {"minimum": -9007199254740991, "maximum": 9007199254740991}, 3),
    (I | {"multipleOf": 5}, 10),
    ({"type": "number", "minimum": 0, "maximum": 1}, 0.5),
    ({"type": "number", "format": "float"}, 1.5),
    ({"type": "number", "maximum": 1.7976931348623157e308}, 1.5),
    ({"type": "number", "multipleOf": 0.01}, 0.25),
    ({"type": "boolean", "default": False}, True),
    ({"type": ["string", "null"]}, None),
    ({"type": ["string", "number", "boolean"]}, 1),
    ({"anyOf": [S, N], "default": None}, "x"),
    ({"anyOf": [{"not": {}}, S]}, "x"),
    ({"anyOf": [{"anyOf": [{"not": {}}, I]}, N]}, 3),
    ({"anyOf": [S, {"type": "array", "items": S}]}, ["a"]),
    ({"oneOf": [S, I]}, 3),
    ({"oneOf": [S, {"type": "string", "format": "uri"}]}, "x"),
    ({"oneOf": [closed(kind={"const": "a"}, v=S), closed(kind={"const": "b"}, v=I)], "discriminator": {"propertyName": "kind"}}, {"kind": "b", "v": 1}),
    ({"allOf": [{"$ref": "#/$defs/Item"}], "description": "d"}, {"key": "k"}),
    ({"allOf": [{"$ref": "#/$defs/Base"}, {"type": "object", "properties": {"more": S}}]}, {"id": "a", "more": "b"}),
    ({"$ref": "#/$defs/Item"}, {"key": "k", "amount": 1}),
    ({"$ref": "#/$defs/Colour", "default": "red"}, "green"),
    ({"$ref": "#/$defs/Tree"}, {"v": 1, "kids": [{"v": 2}]}),
    ({"$ref": "#/$defs/Missing"}, {"a": 1}),
    ({"$ref": "#/components/schemas/Pet"}, {"a": 1}),
    ({"$ref": "https://example.org/schema.json"}, 1),
    ({"type": "array", "items": S}, ["a", "b"]),
    ({"type": "array", "items": S, "uniqueItems": True, "minItems": 1, "maxItems": 100}, ["a"]),
    ({"type": "array", "items": {"$ref": "#/$defs/Point"}}, [{"x": 1, "y": 2}]),
    ({"type": "array", "items": [S, I], "additionalItems": False}, ["a", 1]),
    ({"type": "array", "prefixItems": [S, I], "minItems": 2, "maxItems": 2}, ["a", 1]),
    ({"type": "array"}, [1, "a"]),
    ({"type": "array", "items": {}, "contains": {"const": 1}}, [1]),
    ({"type": "array", "items": None}, [1]),
    ({"type": "object"}, {"any": 1}),
    ({"type": "object", "additionalProperties": S}, {"a": "b"}),
    ({"type": "object", "propertyNames": S, "additionalProperties": {}}, {"a": 1}),
    ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": S}, {"a": "b"}),
    ({"type": "object", "patternProperties": {"^x-": S}, "additionalProperties": False}, {"x-a": "b"}),
    ({"type": "object", "patternProperties": {"^(?!x)": S}, "additionalProperties": False}, {"a": "b"}),
    ({"type": "object", "additionalProperties": True, "minProperties": 1}, {"a": 1}),
    ({"type": "object", "properties": {"a": S, "b": S}, "minProperties": 1}, {"a": "b"}),
    ({"type": "object", "properties": {"a": S, "b": S}, "dependentRequired": {"a": ["b"]}}, {"a": "1", "b": "2"}),
    ({"type": "object", "properties": {"a": S}, "if": {"required": ["a"]}, "then": {"required": ["b"]}}, {}),
    ({"type": "object", "properties": {"a": S}, "not": {"required": ["b"]}}, {"a": "b"}),
    ({"type": "object", "properties": {"a": S}, "required": ["a", "c"], "additionalProperties": False}, {"a": "b"}),
    ({"type": "object", "properties": {"a": S}, "unevaluatedProperties": False}, {"a": "b"}),
    ({"type": "object", "properties": None, "required": None}, {}),
    ({"properties": {"$ref": S, "type": S}, "type": "object"}, {"$ref": "a"}),
    ({"type": "any"}, "x"),
    ({"type": "STRING"}, "x"),
    ({"type": "file"}, "x"),
    ({"description": "anything"}, [1]),
    ({"enum": ["a", 1, None, True, {"a": 1}]}, 1),
    ({"enum": []}, 1),
    ({}, {"a": []}),
    (True, 1),
    (POINT, {"x": 1.5, "y": 2}),
]  # fmt: skip
WORDS = [
    "path",
    "query",
    "limit",
    "cursor",
    "owner",
    "branch",
    "body",
    "filter",
    "depth",
    "mode",
    "tags",
    "since",
    "until",
    "sort",
]
HEADS: list[dict[str, Any]] = [
    {}, {}, {"additionalProperties": False}, {"$schema": "http://json-schema.org/draft-07/schema#"},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.org/args"},
    {"$schema": "https://example.org/unknown"}, {"title": "Args", "description": None},
    {"required": None}, {"definitions": {"Item": S}}, {"additionalProperties": {}},
    {"allOf": [{"if": {"properties": {"mode": {"const": 1}}}, "then": {"required": ["body"]}}]},
]  # fmt: skip


def tool_schema(seed):
    """(schema of a tool's arguments, arguments that satisfy it)."""
    rng = random.Random(seed)
    names = rng.sample(WORDS, rng.randint(0, 6))
    chosen = [FRAGMENTS[(seed + 7 * at) % len(FRAGMENTS)] for at in range(len(names))]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: one for name, (one, _) in zip(names, chosen, strict=True)},
        "required": [name for name in names if rng.random() < 0.6],
    } | rng.choice(HEADS)
    arguments = {name: value for name, (_, value) in zip(names, chosen, strict=True)}
    if rng.random() < 0.2:
        own = {"$ref": "#/$defs/Args", "$defs": {**DEFS, "Args": schema}}
        return own | ({"$schema": schema.pop("$schema")} if "$schema" in schema else {}), arguments
    return schema | {"$defs": DEFS}, arguments
