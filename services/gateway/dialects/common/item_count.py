"""Counts the items of JSON without decoding it: entries of lists and fields of objects."""

from __future__ import annotations

import re
from typing import Final

# What is counted without a pause.
_PIECE_BYTES: Final = 1 << 20
# Strings that come with each comma or colon, at most.
_STRINGS_PER_ITEM: Final = 2
# A JSON string; possessive, so that no way back is kept for each of its escapes.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def count_items(body: bytes, most: int) -> int:
    """How many items JSON has at any depth, but for the first of each list or object.

    Linear, and ends at `most`: whatever is beyond it counts for nothing. Text that is no JSON gives
    any answer.
    """
    found = _commas(body, most)
    if found < most:
        return found
    items = at = 0
    # every string but those of empty or one-field objects comes with a comma or a colon
    for strings, string in enumerate(_STRING.finditer(body)):
        items += body.count(b",", at, string.start())
        at = string.end()
        if items >= most or strings > _STRINGS_PER_ITEM * most:
            return most
    return min(most, items + body.count(b",", at))


def _commas(body: bytes, most: int) -> int:
    """As `count_items`, where text has no commas: in pieces, between which others may run."""
    found = 0
    for at in range(0, len(body), _PIECE_BYTES):
        found += body.count(b",", at, at + _PIECE_BYTES)
        if found >= most:
            break
    return found
