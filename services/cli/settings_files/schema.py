"""JSON Schemas of the settings files, made from the types that the services read them with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import msgspec.inspect as types

from services.backplane.units import (
    BYTES_UNIT,
    DURATION_PATTERN,
    SECONDS_UNIT,
    SIZE_PATTERN,
    UNIT_KEY,
)
from services.cli.settings_files.sections import SettingsFile, sections

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PATTERNS: Final = {BYTES_UNIT: SIZE_PATTERN, SECONDS_UNIT: DURATION_PATTERN}
_ATTRIBUTE: Final = re.compile(r"^(\w+): (.*)$")


DESCRIPTIONS: Final = {
    SettingsFile.CORTEX: "/etc/cortex/cortex.toml: one file for gateway, registry and neuron; "
    "each reads its own sections.",
    SettingsFile.NEURON: "cortex.toml on a host that runs only a neuron.",
    SettingsFile.MODELS: "/etc/cortex/models.toml: the models that the fleet offers.",
    SettingsFile.AGENT: "~/.config/cortex-acp/config.toml: settings of `cortex acp`.",
}


def schema(file: SettingsFile) -> dict[str, Any]:
    """The JSON Schema of one file, with descriptions, defaults and units."""
    if file is SettingsFile.AGENT:
        from services.agent.core.settings import AgentSettings

        return _of_struct(AgentSettings, DESCRIPTIONS[file])
    return _of_sections(sections(file), DESCRIPTIONS[file])


def _of_sections(sections: Mapping[str, Any], description: str) -> dict[str, Any]:
    kinds = list(sections.values())
    schemas, definitions = _components(kinds)
    return {
        "$schema": _DIALECT,
        "description": description,
        "type": "object",
        "properties": dict(zip(sections, schemas, strict=True)),
        "additionalProperties": False,
        "$defs": definitions,
    }


def _of_struct(kind: type[msgspec.Struct], description: str) -> dict[str, Any]:
    _, definitions = _components([kind])
    root = definitions.pop(kind.__name__)
    return {"$schema": _DIALECT, **root, "description": description, "$defs": definitions}


def _components(kinds: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    schemas, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for each in types.multi_type_info(kinds):
        for struct in _structs(each):
            _describe(definitions[struct.cls.__name__], struct)
    enums = {name: each for name, each in definitions.items() if "enum" in each}
    tables = {name: each for name, each in definitions.items() if name not in enums}
    for table in tables.values():
        _allow_units(table)
        for key in table["properties"].values():
            enum_name = key.get("$ref", "").rpartition("/")[2]
            if enum_name in enums:
                del key["$ref"]
                key["enum"] = enums[enum_name]["enum"]
    return list(schemas), tables


def _structs(kind: types.Type) -> Iterator[types.StructType]:
    """All structs within a type."""
    match kind:
        case types.StructType(fields=fields):
            yield kind
            for field in fields:
                yield from _structs(field.type)
        case types.UnionType(types=several):
            for each in several:
                yield from _structs(each)
        case types.DictType(value_type=inner):
            yield from _structs(inner)
        case types.VarTupleType(item_type=inner) | types.Metadata(type=inner):
            yield from _structs(inner)
        case _:
            return


def _describe(definition: dict[str, Any], struct: types.StructType) -> None:
    """Takes the descriptions of a struct and its keys from its docstring."""
    summary, attributes = parse_docstring(inspect.getdoc(struct.cls) or "")
    definition["description"] = summary
    for field in struct.fields:
        if field.name in attributes:
            key = definition["properties"][field.encode_name]
            key["description"] = attributes[field.name]


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """A docstring of a class: what stands before `Attributes:`, and each attribute's own words."""
    head, _, tail = text.partition("Attributes:\n")
    attributes: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(tail).splitlines():
        match = _ATTRIBUTE.match(line)
        if match:
            name = match[1]
            attributes[name] = match[2]
        elif name and line.strip():
            attributes[name] += f" {line.strip()}"
    return " ".join(head.split()), attributes


def _allow_units(node: Any) -> None:
    """Lets each size and each duration be a text with a unit as well as a number."""
    if isinstance(node, list):
        for each in node:
            _allow_units(each)
    elif isinstance(node, dict):
        if UNIT_KEY in node:
            node["type"] = [node["type"], "string"]
            node["pattern"] = _PATTERNS[node[UNIT_KEY]]
        for each in node.values():
            _allow_units(each)
