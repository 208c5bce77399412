"""Arguments that a model writes as bare text, made JSON by the types that the schema allows."""

from __future__ import annotations

import ast
import json
from collections.abc import Set as AbstractSet
from typing import Any, Final

from services.neuron.chat.json_values import loads, well_formed
from services.neuron.chat.schemas.kinds import TYPES, type_of

ONLY_STRING: Final = frozenset({"string"})


def json_of(text: str, kinds: AbstractSet[str]) -> str:
    """The JSON of the value that a text means; it is a string where it means nothing else.

    Where a string is allowed, a number is one only as JSON would write it: `1.10` is a version.

    Args:
        text: as the model wrote it, without quotes of its own.
        kinds: types that the argument's schema allows; `TYPES` where it is not known.
    """
    if kinds <= ONLY_STRING:
        return dumps(text)
    bare = text.strip()
    for read in (loads, ast.literal_eval):
        try:
            value: Any = read(bare)
            spelled = dumps(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if _fits(value, spelled == bare, kinds):
            return bare if read is loads and "\\u" not in bare else spelled
    if "boolean" in kinds and bare.lower() in {"true", "false"}:
        return bare.lower()
    if "null" in kinds and bare.lower() in {"null", "none"}:
        return "null"
    return dumps(text)


def _fits(value: Any, is_canonical: bool, kinds: AbstractSet[str]) -> bool:  # noqa: FBT001 - of one caller
    kind = type_of(value)
    if kind not in kinds:
        return False
    if kind == "string":
        return kinds == TYPES  # else it is a string that has quotes in it
    return "string" not in kinds or is_canonical or kind not in {"integer", "number"}


def opened(text: str, kinds: AbstractSet[str]) -> str:
    """The beginning of a value's JSON, where its end is missing: never JSON that looks whole."""
    return dumps(text)[:-1] if "string" in kinds else text.lstrip()


def dumps(value: Any) -> str:
    """JSON as models write it: no escapes beyond need, and U+FFFD for half a surrogate pair.

    Raises:
        ValueError: Python can spell the value, JSON cannot.
    """
    try:
        return well_formed(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
