"""The settings that are in force, and where each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from services.backplane.settings import Document
from services.cli.settings_files.schema import schema
from services.cli.settings_files.sections import SettingsFile, read_sections
from services.cli.settings_files.values import Node, shown

NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class Effective:
    """One setting that is in force.

    Attributes:
        section: such as `neuron.workers`, or `auth.keys[0]`.
        key: within the section.
        value: without what is secret in it; None: unset.
        origin: `default`, or the file, the variable or the option that it is from.
        node: what the schema says of it.
    """

    section: str
    key: str
    value: Any
    origin: str
    node: Node


def in_force(document: Document, chosen: Mapping[str, str] = NONE) -> Iterator[Effective]:
    """Every setting of every section, in the order of docs/configuration.md.

    Args:
        document: of file and environment.
        chosen: dotted key to the place of what a command has added to them.

    Raises:
        SettingsError: a section cannot be used.
    """
    definitions = schema(SettingsFile.CORTEX)["$defs"]
    origins = _Origins(document, chosen)
    for section, value in read_sections(document):
        yield from _of(value, section, origins, definitions)


@dataclasses.dataclass(frozen=True, slots=True)
class _Origins:
    document: Document
    chosen: Mapping[str, str]

    def of(self, key: str) -> str:
        """Where a dotted key's value is from."""
        if not self._is_set(key):
            return "default"
        whole, _, _ = key.partition("[")  # what is within a list is from where the list is
        for known in (self.chosen, self.document.variables):
            parts = whole.split(".")
            while parts:
                if ".".join(parts) in known:
                    return known[".".join(parts)]
                parts.pop()
        return self.document.source

    def _is_set(self, key: str) -> bool:
        node: Any = self.document.tables
        for part in key.replace("[", ".").replace("]", "").split("."):
            if isinstance(node, list | tuple):
                node = node[int(part)]
            elif isinstance(node, Mapping) and part in node:
                node = node[part]
            else:
                return False
        return True


def _of(
    value: Any, section: str, origins: _Origins, definitions: Mapping[str, Node]
) -> Iterator[Effective]:
    if isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from _of(each, f"{section}[{number}]", origins, definitions)
        return
    assert isinstance(value, msgspec.Struct)
    properties = definitions[type(value).__name__]["properties"]
    inner: list[tuple[str, Any]] = []
    for field in msgspec.structs.fields(value):
        key, each = field.encode_name, getattr(value, field.name)
        many = each if isinstance(each, tuple) else (each,)
        if any(isinstance(one, msgspec.Struct) for one in many):
            inner.append((f"{section}.{key}", each))
            continue
        dotted = f"{section}.{key}"
        node = properties[key]
        yield Effective(section, key, shown(each, node), origins.of(dotted), node)
    for name, each in inner:
        yield from _of(each, name, origins, definitions)
