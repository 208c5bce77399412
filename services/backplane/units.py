"""Sizes and durations as people write them in a configuration file."""

from __future__ import annotations

import re
from typing import Final

_SIZE = re.compile(r"^\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kKMGT]i?B|B)\s*$")
_SPAN = re.compile(r"^\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)\s*$")
_POWERS: Final[dict[str, int]] = {"K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(value: int | str) -> int:
    """Bytes of `24GiB`, `500MB` or a plain number of bytes.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative")
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError(f"{value!r} is not a size like '24GiB', '500MB' or a number of bytes")
    unit = match["unit"]
    base = 1024.0 if "i" in unit else 1000.0
    return round(float(match["number"]) * base ** _POWERS.get(unit[0].upper(), 0))


def parse_seconds(value: float | str) -> float:
    """Seconds of `10m`, `90s` or a plain number of seconds.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int | float):
        if value < 0:
            raise ValueError(f"{value} is negative")
        return float(value)
    match = _SPAN.match(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration like '90s', '10m' or a number of seconds")
    return float(match["number"]) * _SECONDS[match["unit"]]


def format_bytes(count: float) -> str:
    """A size for people, in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - the step of the units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
