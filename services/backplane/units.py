"""Sizes and durations as people write them in a settings file, and types of settings for them.

A field of one of the types here takes a plain number or a text with a unit: `"20GiB"`, `"30s"`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

# Also read by JSON Schema, so without names for the groups.
SIZE_PATTERN: Final = r"^\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B)\s*$"
DURATION_PATTERN: Final = r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$"
# The key by which a field's JSON Schema says that its numbers have a unit, and its two values.
UNIT_KEY: Final = "x-unit"
BYTES_UNIT: Final = "bytes"
SECONDS_UNIT: Final = "seconds"

# Marks for fields with bounds of their own: `Annotated[float, IN_SECONDS, msgspec.Meta(ge=1)]`.
IN_BYTES: Final = msgspec.Meta(extra_json_schema={UNIT_KEY: BYTES_UNIT})
IN_SECONDS: Final = msgspec.Meta(extra_json_schema={UNIT_KEY: SECONDS_UNIT})
Bytes = Annotated[int, IN_BYTES, msgspec.Meta(ge=0)]
PositiveBytes = Annotated[int, IN_BYTES, msgspec.Meta(ge=1)]
Seconds = Annotated[float, IN_SECONDS, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, IN_SECONDS, msgspec.Meta(gt=0)]

_SIZE = re.compile(SIZE_PATTERN)
_DURATION = re.compile(DURATION_PATTERN)
_POWERS: Final[dict[str, int]] = {"K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(text: str) -> int:
    """Bytes of `24GiB` or `500MB`.

    Raises:
        ValueError: it is no such text.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size like '24GiB', '500MB' or a number of bytes")
    unit = match[2]
    base = 1024.0 if "i" in unit else 1000.0
    return round(float(match[1]) * base ** _POWERS.get(unit[0].upper(), 0))


def parse_seconds(text: str) -> float:
    """Seconds of `10m` or `90s`.

    Raises:
        ValueError: it is no such text.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration like '90s', '10m' or a number of seconds")
    return float(match[1]) * _SECONDS[match[2]]


def format_bytes(count: float) -> str:
    """A size for people, in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - the step of the units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
