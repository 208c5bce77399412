"""Keywords without schemas in them, as they can be enforced. Pure.

Source: what llguidance 1.9 refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.neuron.chat.schemas.document import Schema, is_impossible, regular
from services.neuron.chat.schemas.kinds import TYPES, own_kinds, type_of
from services.neuron.chat.schemas.patterns import FORMATS, is_enforceable

Keywords = Mapping[str, Any]
_COUNTS: Final = tuple(
    f"{end}{of}" for end in ("min", "max") for of in ("Length", "Items", "Properties")
)
# Bounds and steps beyond these have no regular expression.
_GREATEST_BOUND: Final = 1e15
_LEAST_STEP: Final = 1e-6
_PAIRS: Final = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
)


def enforceable(key: str, value: Any, own: Schema) -> Keywords | None:
    """What a keyword is written as; empty where it asks for nothing, None where it cannot be.

    Args:
        key: a keyword of no schema's, or one that is not enforced at all.
        value: of the keyword.
        own: the keywords beside it.
    """
    match key:
        case "type":
            return _type(value)
        case "enum":
            fitting = [one for one in value if type_of(one) in own_kinds({"type": own.get("type")})]
            return {key: fitting} if fitting else None
        case "const":
            return {key: value}
        case "required":
            return {key: list(dict.fromkeys(name for name in value if isinstance(name, str)))}
        case "pattern":
            return {key: value} if is_enforceable(value) else None
        case "format":
            return {key: value} if value in FORMATS else None
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return _bound(key, value, own)
        case "multipleOf":
            fits = _is_number(value) and _LEAST_STEP <= value <= _GREATEST_BOUND
            return {key: value} if fits else None
        case _ if key in _COUNTS:
            whole = _is_number(value) and 0 <= value <= _GREATEST_BOUND and value == int(value)
            return {key: int(value)} if whole else None
        case _:
            return {} if _asks_nothing(key, value, own) else None


def impossible_bounds(written: Keywords) -> list[str]:
    """Greatest values that are less than the least ones."""
    return [
        most
        for least, most in _PAIRS
        if least in written and most in written and written[least] > written[most]
    ]


def _type(value: str | list[Any]) -> Keywords | None:
    named: list[Any] = value if isinstance(value, list) else [value]
    known = [one.lower() for one in named if isinstance(one, str) and one.lower() in TYPES]
    if len(known) < len(named):
        return None
    return {"type": known if isinstance(value, list) else known[0]} if known else {}


def _bound(key: str, value: Any, own: Schema) -> Keywords | None:
    if isinstance(value, bool):  # as draft 4 spells it: the other keyword's bound is excluded
        bound = own.get(key.replace("exclusiveM", "m"))
        return _bound(key, bound, {}) if value and not isinstance(bound, bool) else {}
    fits = _is_number(value) and abs(value) <= _GREATEST_BOUND
    return {key: value} if fits else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _asks_nothing(key: str, value: Any, own: Schema) -> bool:
    """Whether a keyword that cannot be enforced forbids nothing; so do those that are unknown."""
    match key:
        case "if":
            return not own.keys() & {"then", "else"}
        case "propertyNames":
            return not regular(value).keys() - {"type"}
        case "not":
            return is_impossible(value)
        case "uniqueItems":
            return value is False
        case "unevaluatedItems" | "unevaluatedProperties":
            return value is True or value == {}
        case (
            "$dynamicRef" | "$recursiveRef" | "contains" | "dependencies" | "dependentRequired"
            | "dependentSchemas"
        ):  # fmt: skip
            return bool(value == {})
        case _:
            return True
