"""Single settings as people read and write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from services.backplane.units import BYTES_UNIT, SECONDS_UNIT, UNIT_KEY

Node = Mapping[str, Any]
"""What a JSON Schema says of one key."""

_SCALES: Final = {
    BYTES_UNIT: ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
    SECONDS_UNIT: ((3600, "h"), (60, "m"), (1, "s")),
}
_HIDDEN: Final = "(hidden)"
# Up to the last @: a password that should have been percent-encoded may have others within it.
_USER_IN_URL: Final = re.compile(r"(?P<scheme>\w+)://(?P<user>[^:@/?\s]*)(?P<password>:\S*)?(?=@)")
_IN_QUERY: Final = re.compile(r"(?<=[?&;])(?P<key>[^=&;\s]+)=[^&;\s]*")
_SECRET_WORD: Final = re.compile("passw|pwd|secret|token|api_?key", re.IGNORECASE)


def quantity_words(value: float, node: Node) -> str:
    """A number as people write it, with the largest unit that it is a whole multiple of."""
    for size, unit in _SCALES.get(unit_of(node), ()):
        if value and value % size == 0:
            return f"{value / size:.0f}{unit}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def unit_of(node: Node) -> str:
    """The unit of a key's numbers; empty where they have none."""
    for each in (node, *node.get("anyOf", ())):
        if UNIT_KEY in each:
            return str(each[UNIT_KEY])
    return ""


def is_secret(node: Node) -> bool:
    """Whether a key's value is not for the eyes of those who look at settings."""
    return any(each.get("writeOnly") for each in (node, *node.get("anyOf", ())))


def shown(value: Any, node: Node) -> Any:
    """A value without what is secret in it: keys, passwords, passwords within URLs."""
    if is_secret(node) and value:
        return _HIDDEN
    if isinstance(value, str):
        return _IN_QUERY.sub(_query_shown, _USER_IN_URL.sub(_user_shown, value))
    if isinstance(value, Mapping):
        return {shown(key, {}): shown(each, {}) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(shown(each, {}) for each in value)
    return value


def _user_shown(found: re.Match[str]) -> str:
    """Who a URL names; of the web's, he is a token as often as a name."""
    user = _HIDDEN if found["scheme"].lower() in {"http", "https"} else found["user"]
    return f"{found['scheme']}://{user}" + (f":{_HIDDEN}" if found["password"] else "")


def _query_shown(found: re.Match[str]) -> str:
    is_told = not _SECRET_WORD.search(unquote(found["key"]))
    return found[0] if is_told else f"{found['key']}={_HIDDEN}"


def text(value: str) -> str:
    """A text as a basic string of TOML."""
    # JSON's escapes are TOML's, but that half a surrogate pair is no character there, nor DEL one
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml(value: Any, node: Node) -> str:
    """A value as TOML, sizes and durations with their units."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        words = quantity_words(value, node)
        return f'"{words}"' if words[-1:].isalpha() else words
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        pairs = (f"{text(key)} = {toml(each, {})}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    assert isinstance(value, Sequence)
    return f"[{', '.join(toml(each, node.get('items', {})) for each in value)}]"


def table_of(node: Node, definitions: Mapping[str, Node]) -> Node | None:
    """The struct that a key holds, alone, in an array, or beside something else."""
    for each in (node, *node.get("anyOf", ())):
        reference = each.get("$ref") or each.get("items", {}).get("$ref")
        if reference:
            return definitions[reference.rpartition("/")[2]]
    return None
