"""One JSON Schema and all that its references lead to. Pure.

Source: JSON Schema 2020-12, and what drafts 4 to 7 say of `id`, `definitions` and tuples. Clients
written in typed languages send null for what they leave out; that is as if it were left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urljoin

Schema = Mapping[str, Any]
IMPOSSIBLE: Final[Schema] = {"not": {}}
_MAPS: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "enum", "required"})
_TEXTS: Final = frozenset({"$ref", "pattern", "format"})
_ANY_VALUE: Final = frozenset({"const", "default"})
# A schema may say these beside a reference without saying more.
_ANNOTATIONS: Final = frozenset(
    {
        "title", "description", "default", "example", "examples", "deprecated", "readOnly",
        "writeOnly", "$comment", "$schema", "$id", "id", "$anchor", "$defs", "definitions",
    }
)  # fmt: skip


def regular(schema: Any) -> Schema:
    """A schema's own keywords, without those that are null or of a kind that they cannot be.

    True, and what is no schema at all, is `{}`; false is `IMPOSSIBLE`. Schemas inside stay as they
    are.
    """
    if schema is False:
        return IMPOSSIBLE
    if not isinstance(schema, dict):
        return {}
    pairs: dict[str, Any] = schema
    return {key: value for key, value in pairs.items() if _is_regular(key, value)}


def _is_regular(key: str, value: Any) -> bool:
    if key in _ANY_VALUE:
        return True
    if key in _MAPS:
        return isinstance(value, dict)
    if key in _LISTS:
        return isinstance(value, list)
    if key in _TEXTS:
        return isinstance(value, str)
    if key == "type":
        return isinstance(value, (str, list))
    return value is not None


def is_impossible(schema: Any) -> bool:
    """Whether no value can satisfy a schema, as far as it says so by itself."""
    denied = regular(schema).get("not")
    return denied is True or denied == {}


class SchemaDocument:
    """A schema that is a root of its own: its references start here and never leave it."""

    def __init__(self, root: Any) -> None:
        self.root: Schema = root if isinstance(root, dict) else {}
        self._named: dict[str, Any] | None = None

    def resolve(self, reference: str) -> Any:
        """What a reference leads to.

        Raises:
            LookupError: nothing here.
        """
        base, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        start = self._by_name(base) if base else self.root
        if not fragment:
            return start
        if not fragment.startswith("/"):
            return self._by_name("#" + fragment)
        for step in fragment[1:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            start = _child(start, key)
        return start

    def followed(self, schema: Any) -> Schema:
        """The schema that this one stands for, where it is nothing but a reference.

        Raises:
            LookupError: the reference leads nowhere, or in a circle.
        """
        seen: set[str] = set()
        own = regular(schema)
        while "$ref" in own and own.keys() <= _ANNOTATIONS | {"$ref"}:
            if own["$ref"] in seen:
                raise LookupError(own["$ref"])
            seen.add(own["$ref"])
            own = regular(self.resolve(own["$ref"]))
        return own

    def _by_name(self, name: str) -> Any:
        if self._named is None:
            self._named = dict(_names(self.root))
        return self._named[name]


def _child(value: Any, key: str) -> Any:
    if isinstance(value, list):
        items: list[Any] = value
        if not (key.isascii() and key.isdecimal()):
            raise LookupError(key)
        return items[int(key)]
    if not isinstance(value, dict):
        raise LookupError(key)  # noqa: TRY004 - it is not there
    pairs: dict[str, Any] = value
    return pairs[key]


def _names(root: Schema) -> Iterator[tuple[str, Any]]:
    """The identifiers and anchors in a schema, each with what it names."""
    own = root.get("$id", root.get("id"))
    base = own if isinstance(own, str) else ""
    waiting: list[Any] = [root]
    while waiting:
        match waiting.pop():
            case dict() as node:
                pairs: dict[str, Any] = node
                for key in ("$id", "id"):
                    if isinstance(pairs.get(key), str):
                        yield pairs[key], pairs
                        yield urljoin(base, pairs[key]), pairs
                for key in ("$anchor", "$dynamicAnchor"):
                    if isinstance(pairs.get(key), str):
                        yield "#" + pairs[key], pairs
                waiting.extend(pairs.values())
            case list() as nodes:
                items: list[Any] = nodes
                waiting.extend(items)
            case _:
                pass
