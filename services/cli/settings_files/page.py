"""docs/configuration.md, made from the JSON Schemas of the settings files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from services.backplane.address import ADDRESS_KEY
from services.backplane.units import BYTES_UNIT, UNIT_KEY
from services.cli.settings_files.schema import DESCRIPTIONS, schema
from services.cli.settings_files.sections import SettingsFile
from services.cli.settings_files.values import Node, quantity_words, table_of

_HEAD: Final = """# Every setting

<!-- Made by `cortex config docs > docs/configuration.md` from the types that the services read. -->

A *size* is a number of bytes or a text such as `"500MB"` (of 1000) or `"24GiB"` (of 1024).
A *duration* is a number of seconds or a text such as `"500ms"`, `"30s"`, `"10m"`, `"2h"` or `"1d"`.
An *address* is `host:port`, `[v6]:port` or `unix:PATH`.
`CORTEX_SECTION__KEY` in the environment overrides a key of cortex.toml and takes the same texts; arrays and tables are written as TOML.
A key that is unknown or has a wrong value is fatal at start, and the message names the file (or variable), the key and the reason.
`cortex config schema [cortex|neuron|models|agent]` prints the same as a JSON Schema, which editors complete and check TOML with.
"""  # noqa: E501 - one sentence a line
_TITLES: Final = {
    SettingsFile.CORTEX: "cortex.toml",
    SettingsFile.MODELS: "models.toml",
    SettingsFile.AGENT: "agent.toml",
}
_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}
_BOUNDS: Final = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "more than"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "less than"),
)


def page() -> str:
    """The page in Markdown."""
    lines = [_HEAD]
    for file, title in _TITLES.items():
        lines.append(f"## {title}\n\n{DESCRIPTIONS[file]}\n")
        whole = schema(file)
        definitions = whole["$defs"]
        properties: dict[str, Node] = whole["properties"]
        tables = {key: node for key, node in properties.items() if _is_table(node)}
        plain = {key: node for key, node in properties.items() if key not in tables}
        if plain:
            lines.append(_keys({"properties": plain, "required": []}))
        for key, node in tables.items():
            lines.extend(_table(key, node, definitions))
    return "\n".join(lines)


def _table(name: str, node: Node, definitions: Mapping[str, Node]) -> Iterator[str]:
    """A table's heading, words and keys, then those of the tables within it."""
    table = table_of(node, definitions)
    if table is None:  # its keys are the user's own
        yield f"### `[{name}]`\n\n{_type(node).capitalize()}.\n"
        for each in node["additionalProperties"].get("anyOf", ()):
            if table_of(each, definitions) is not None:
                yield from _table(f"{name}.NAME", each, definitions)
        return
    heading = f"[[{name}]]" if _is_array(node) else f"[{name}]"
    yield f"### `{heading}`\n\n{table['description']}\n"
    yield _keys(table)
    for key, each in table["properties"].items():
        if table_of(each, definitions) is not None:
            yield from _table(f"{name}.{key}", each, definitions)


def _keys(table: Node) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, node in table["properties"].items():
        default = "required" if key in table["required"] else _default(node)
        words = (_bar(_type(node)), default, _bar(node.get("description", "")))
        rows.append(f"| `{key}` | {' | '.join(words)} |")
    return "\n".join(rows) + "\n"


def _is_table(node: Node) -> bool:
    return "$ref" in node or "$ref" in node.get("items", {}) or "additionalProperties" in node


def _is_array(node: Node) -> bool:
    return "items" in node


def _type(node: Node) -> str:
    if "anyOf" in node:
        parts = [_type(each) for each in node["anyOf"] if each.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in node:
        return ", ".join(f"`{each}`" if each else "empty" for each in node["enum"])
    if UNIT_KEY in node:
        return _bounded("size" if node[UNIT_KEY] == BYTES_UNIT else "duration", node)
    if ADDRESS_KEY in node:
        return "address"
    if "$ref" in node:
        return "table"
    kind = node["type"]
    if kind == "array":
        return f"list of {_plural(node['items'])}"
    if kind == "object":
        return f"table of {_plural(node['additionalProperties'])}"
    return _bounded(_TYPES[kind], node)


def _plural(node: Node) -> str:
    if "anyOf" in node:
        return " or ".join(_plural(each) for each in node["anyOf"])
    if "$ref" in node:
        return "tables"
    words = _type(node)
    return {"text": "texts", "address": "addresses"}.get(words, words)


def _bounded(words: str, node: Node) -> str:
    bounds = [f"{word} {quantity_words(node[key], node)}" for key, word in _BOUNDS if key in node]
    return ", ".join([words, *bounds])


def _default(node: Node) -> str:
    value = node.get("default")
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{quantity_words(value, node)}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if not value:
        return "none"
    if not isinstance(value, dict) and all(isinstance(each, str) for each in value):
        return ", ".join(f"`{each}`" for each in value)
    return "see below"


def _bar(words: str) -> str:
    return words.replace("|", "\\|")
