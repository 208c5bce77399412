"""A tool's schema as it can be enforced, and what had to be left out of it for that. Pure.

llguidance refuses keywords that it cannot enforce, and schemas that nothing can satisfy. A call had
better be held to most of its schema than to none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.neuron.chat.schemas.document import Schema, SchemaDocument, is_impossible, regular
from services.neuron.chat.schemas.keywords import Keywords, enforceable, impossible_bounds
from services.neuron.chat.schemas.kinds import kinds
from services.neuron.chat.schemas.patterns import is_enforceable


class SchemaWriter:
    """Writes one tool's schema, its references into definitions of its own.

    Attributes:
        definitions: what the written schema refers to, by name.
        left_out: keywords that could not be enforced, in the order in which they were met.
        held: keywords that were written, likewise.
    """

    def __init__(
        self,
        document: SchemaDocument,
        *,
        prefix: str,
        may_relax: bool,
        without: frozenset[str] = frozenset(),
    ) -> None:
        """Writes nothing yet.

        Args:
            document: the tool's schema.
            prefix: of the names of definitions, which keeps them apart from other tools'.
            may_relax: what parts of a whole forbid one another may be allowed all the same.
            without: keywords that are known to make it unenforceable; they are left out.
        """
        self._document, self._prefix, self._may_relax = document, prefix, may_relax
        self._without = without
        self._names: dict[tuple[int, bool], str] = {}
        self.definitions: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.held: list[str] = []

    def write(self, schema: Any, *, is_part: bool = False) -> Any:
        """A schema as it can be enforced.

        Args:
            schema: a schema of the document.
            is_part: its value has to satisfy others beside it, which know more properties.
        """
        if is_impossible(schema):
            return False
        own = regular(schema)
        written: dict[str, Any] = {}
        for key, value in own.items():
            is_lost = key in self._without
            part = None if is_lost else self._written(key, value, own, is_part=is_part)
            if part is None:
                self._leave_out(key)
                continue
            if part and key not in self.held:
                self.held.append(key)
            written.update(part)
        self._mind_properties(written, is_part=is_part)
        for key in impossible_bounds(written):
            self._leave_out(key, written)
        return written

    def _leave_out(self, key: str, written: dict[str, Any] | None = None) -> None:
        if written is not None:
            written.pop(key, None)
        if key not in self.left_out:
            self.left_out.append(key)

    def _written(self, key: str, value: Any, own: Schema, *, is_part: bool) -> Keywords | None:
        """What a keyword is written as; None where it cannot be enforced."""
        match key:
            case "$ref":
                return self._reference(value, is_part=is_part)
            case "allOf":
                beside = own.keys() & {"properties", "$ref", "anyOf", "oneOf"}
                parts = len(value) + len(beside) > 1 or is_part
                return {key: [self.write(one, is_part=parts) for one in value]} if value else {}
            case "anyOf" | "oneOf":
                parts = is_part or "properties" in own
                return self._alternatives(key, value, own, is_part=parts)
            case "properties":
                return {key: {name: self.write(one) for name, one in value.items()}}
            case "patternProperties" | "additionalProperties":
                return self._others(key, value, own)
            case "prefixItems" | "items":
                return self._items(key, value, own)
            case _:
                return enforceable(key, value, own)

    def _others(self, key: str, value: Any, own: Schema) -> Keywords:
        """Properties that are not listed."""
        lost = [name for name in own.get("patternProperties", ()) if not is_enforceable(name)]
        if lost:
            self._leave_out("patternProperties")
        if key == "patternProperties":
            return {key: {name: self.write(value[name]) for name in value if name not in lost}}
        # what a pattern that is lost allows must not be forbidden
        return {} if lost else {key: self.write(value)}

    def _items(self, key: str, value: Any, own: Schema) -> Keywords:
        if not isinstance(value, list):
            return {key: self.write(value)}
        first: list[Any] = value
        written = {"prefixItems": [self.write(one) for one in first]}
        if key == "items":  # a tuple as drafts 4 to 7 spell it
            return written | {"items": self.write(own.get("additionalItems", True))}
        return written

    def _reference(self, reference: str, *, is_part: bool) -> Keywords | None:
        try:
            target = self._document.resolve(reference)
            self._document.followed(target)
        except LookupError:
            return None
        key = (id(target), is_part)
        if key not in self._names:
            name = self._names[key] = f"{self._prefix}{len(self._names)}"
            self.definitions[name] = self.write(target, is_part=is_part)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _alternatives(
        self, key: str, value: Sequence[Any], own: Schema, *, is_part: bool
    ) -> Keywords | None:
        possible = [one for one in value if not is_impossible(one)]
        if not possible:
            return None
        written = [self.write(one, is_part=is_part) for one in possible]
        if key == "oneOf" and own.get("anyOf"):
            return None  # written as the same keyword, of which there is one
        if key == "oneOf" and not self._exclude_one_another(possible):
            self._leave_out(key)
        return {"anyOf": written}

    def _exclude_one_another(self, schemas: Sequence[Any]) -> bool:
        """Whether alternatives are of different types or values, or a property tells them apart."""
        found = [kinds(one, self._document) for one in schemas]
        if sum(map(len, found)) == len(frozenset().union(*found)):
            return True
        try:
            followed = [self._document.followed(one) for one in schemas]
        except LookupError:
            return False
        return _have_other_values(followed) or _are_told_apart(followed)

    def _mind_properties(self, written: dict[str, Any], *, is_part: bool) -> None:
        """Nothing can have a property that is required and may not be."""
        listed = written.get("properties", {})
        required = written.get("required", [])
        if is_part and written.get("additionalProperties") is False and self._may_relax:
            self._leave_out("additionalProperties", written)
        closed = written.get("additionalProperties") is False and not written.get(
            "patternProperties"
        )
        possible = [key for key in required if listed.get(key, not closed) is not False]
        if len(possible) < len(required):
            self._leave_out("required")
            written["required"] = possible
        # they can be counted only where none of those that are listed may be missing
        if not set(listed) <= set(possible):
            for key in ("minProperties", "maxProperties"):
                if key in written:
                    self._leave_out(key, written)


def _are_told_apart(schemas: Sequence[Schema]) -> bool:
    """Whether a property that all of them require has other values in each."""
    for key in schemas[0].get("required", ()):
        if all(key in one.get("required", ()) for one in schemas) and _have_other_values(
            [regular(one.get("properties", {}).get(key)) for one in schemas]
        ):
            return True
    return False


def _have_other_values(schemas: Sequence[Schema]) -> bool:
    """Whether all of them list their values, and none has one of another's."""
    told: list[str] = []
    for own in schemas:
        values = [own["const"]] if "const" in own else own.get("enum")
        if values is None:
            return False
        told += map(repr, values)
    return len(set(told)) == len(told)
