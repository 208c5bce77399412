"""Requests that differ in one property, for every property that a document's schema names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from services.gateway.dialects.common import signature
from tests.contract.openapi.document import Document
from tests.unit.gateway.dialects.conversations import PIXEL

_PREFIX: Final = "#/components/schemas/"
Put = Callable[[Any], Any]

# Values that a schema alone does not give away, by component and property.
_KNOWN: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    ("Base64ImageSource", "data"): (PIXEL, "AAAA"),
    ("CreateMessageParams", "max_tokens"): (8192, 4096, 0),
    ("RequestDocumentBlock", "source"): ({"type": "text", "data": "one"},),
    ("RequestRedactedThinkingBlock", "data"): (signature.sign("one", carry=True), "another"),
    ("ToolChoiceTool", "name"): ("first", "second"),
    ("JsonOutputFormat", "schema"): ({"type": "object"}, {"type": "object", "required": ["a"]}),
    ("Tool", "input_schema"): ({"type": "object"}, {"type": "object", "required": ["a"]}),
    ("CreateMessageParams", "messages"): ([{"role": "user", "content": "Hello"}],),
    ("CountMessageTokensParams", "messages"): ([{"role": "user", "content": "Hello"}],),
    ("RequestServerToolUseBlock", "id"): ("srvtoolu_1", "srvtoolu_2"),
}


class Probe(NamedTuple):
    """One property at one place.

    Attributes:
        where: the path of the property in the body, as refusals name it.
        component: that names the property, without the prefix of betas.
        bodies: differ in the property's value only; the first lacks it where it may.
    """

    where: str
    component: str
    name: str
    bodies: tuple[Any, ...]


class Prober:
    """Walks the schemas of one document.

    Args:
        skips: components and properties that are not walked into.
    """

    def __init__(self, document: Document, skips: Callable[[str, str], bool]) -> None:
        self._schemas = document.raw["components"]["schemas"]
        self._skips = skips

    def probes(self, schema: Any, put: Put, where: str = "") -> Iterator[Probe]:
        """Every property below a schema whose value `put` makes a whole body of."""
        yield from self._walk(schema, put, where, frozenset())

    def _walk(self, schema: Any, put: Put, where: str, seen: frozenset[str]) -> Iterator[Probe]:
        component, schema = self._resolved(schema)
        if component in seen:
            return
        if component:
            seen |= {component}
        for one in _alternatives(schema):
            yield from self._walk(one, put, where, seen)
        if "items" in schema:
            yield from self._walk(schema["items"], lambda v: put([v]), _step(where, "0"), seen)
        yield from self._properties(component, schema, put, where, seen)

    def _properties(
        self, component: str, schema: Any, put: Put, where: str, seen: frozenset[str]
    ) -> Iterator[Probe]:
        least = self.least(schema, component)
        named = component.removeprefix("Beta")
        for name, each in schema.get("properties", {}).items():

            def put_here(value: Any, name: str = name) -> Any:
                return put(least | {name: value})

            if self._constant(each):
                continue
            if not self._is_leaf(each):
                if not self._skips(named, name):
                    yield from self._walk(each, put_here, _step(where, name), seen)
                continue
            bodies = [put_here(value) for value in self._values(component, name, each)]
            if name not in schema.get("required", ()):
                bodies.insert(0, put({key: one for key, one in least.items() if key != name}))
            yield Probe(_step(where, name), named, name, tuple(bodies))

    def least(self, schema: Any, component: str = "") -> Any:
        """The plainest value of a schema: what it requires and nothing else."""
        found, schema = self._resolved(schema)
        component = found or component
        alternatives = _alternatives(schema)
        if alternatives:
            return self.least(alternatives[0])
        if "const" in schema or "enum" in schema:
            return schema["const"] if "const" in schema else schema["enum"][0]
        match schema.get("type"):
            case "object":
                made = {}
                for name in schema.get("required", ()):
                    known = _KNOWN.get((component.removeprefix("Beta"), name))
                    made[name] = known[0] if known else self.least(schema["properties"][name])
                return made
            case "array":
                return []
            case "integer" | "number":
                return schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return "one"

    def _values(self, component: str, name: str, schema: Any) -> tuple[Any, ...]:
        known = _KNOWN.get((component.removeprefix("Beta"), name))
        return known or tuple(self._some(schema))

    def _some(self, schema: Any) -> Iterator[Any]:
        """Several values of a schema without properties."""
        _, schema = self._resolved(schema)
        for one in _alternatives(schema):
            yield from self._some(one)
        if "enum" in schema or "const" in schema:
            yield from schema.get("enum") or [schema["const"]]
            return
        match schema.get("type"):
            case "boolean":
                yield from (False, True)
            case "integer" | "number":
                least = self.least(schema)
                yield from (least, schema.get("maximum", least + 1))
            case "string":
                yield from ("one", "another")
            case "null":
                yield None
            case "object":
                yield from ({}, {"a": 1})
            case "array":
                yield []
                for one in self._some(schema.get("items", {})):
                    yield [one]
            case _:
                return

    def _is_leaf(self, schema: Any) -> bool:
        """It holds no property that has a name of its own."""
        _, schema = self._resolved(schema)
        parts = [*_alternatives(schema), *([schema["items"]] if "items" in schema else ())]
        if schema.get("additionalProperties") is True:
            return True
        return not schema.get("properties") and all(self._is_leaf(one) for one in parts)

    def _constant(self, schema: Any) -> bool:
        _, schema = self._resolved(schema)
        return "const" in schema

    def _resolved(self, schema: Any) -> tuple[str, Any]:
        if "$ref" not in schema:
            return "", schema
        name = schema["$ref"].removeprefix(_PREFIX)
        return name, self._schemas[name]


def _alternatives(schema: Any) -> list[Any]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _step(where: str, step: str) -> str:
    return f"{where}.{step}" if where else step
