"""Reads the texts of a settings document that its types say more about than that they are texts.

Sizes and durations become numbers; addresses are checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec.inspect as types

from services.backplane import units
from services.backplane.address import ADDRESS_KEY, ADDRESS_OR_EMPTY, Address

_PARSERS: Final = {units.BYTES_UNIT: units.parse_bytes, units.SECONDS_UNIT: units.parse_seconds}

# As an environment variable holds it: left to the conversion, which knows whether it may be a text.
_PLAIN_NUMBER: Final = re.compile(r"^\s*[-+]?\d[\d_.eE+-]*\s*$")


class BadQuantityError(ValueError):
    """A text that is no size, no duration or no address.

    Attributes:
        path: where it stands, as msgspec words it: `$.limits[0].wait`.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{reason} - at `{path}`")
        self.path = path


def read_quantities(value: Any, kind: Any) -> Any:
    """The value with each text like `"20GiB"` as a number, where the type is one of `units`.

    Texts whose type is one of `address` are checked.

    Args:
        value: what a parser of TOML returned; it is not changed.
        kind: the type that it will be converted to.

    Raises:
        BadQuantityError: a text is no quantity of that unit, or no address.
    """
    return _read(value, types.type_info(kind), "$")


def _read(value: Any, kind: types.Type, path: str) -> Any:
    match kind:
        case types.UnionType(types=several):
            for each in several:
                value = _read(value, each, path)
            return value
        case types.Metadata(type=inner, extra_json_schema=extra):
            marks = extra or {}
            if unit := marks.get(units.UNIT_KEY):
                return _number(value, unit, path)
            if need := marks.get(ADDRESS_KEY):
                _check_address(value, need, path)
            return _read(value, inner, path)
        case types.StructType(fields=fields) if isinstance(value, dict):
            inner_types = {each.encode_name: each.type for each in fields}
            return _read_table(cast("dict[str, Any]", value), inner_types, path)
        case types.VarTupleType(item_type=item) | types.ListType(item_type=item) if isinstance(
            value, list
        ):
            entries: list[Any] = value
            return [_read(each, item, f"{path}[{index}]") for index, each in enumerate(entries)]
        case _:
            return value


def _read_table(table: dict[str, Any], kinds: Mapping[str, types.Type], path: str) -> Any:
    return {
        key: _read(value, kinds[key], f"{path}.{key}") if key in kinds else value
        for key, value in table.items()
    }


def _number(value: Any, unit: str, path: str) -> Any:
    if not isinstance(value, str) or _PLAIN_NUMBER.match(value):
        return value
    try:
        return _PARSERS[unit](value)
    except ValueError as error:
        raise BadQuantityError(path, str(error)) from error


def _check_address(value: Any, need: str, path: str) -> None:
    if not isinstance(value, str) or (need == ADDRESS_OR_EMPTY and not value):
        return
    try:
        Address.parse(value)
    except ValueError as error:
        raise BadQuantityError(path, str(error)) from error
