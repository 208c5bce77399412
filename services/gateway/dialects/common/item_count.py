"""Counts the items of JSON without decoding it: entries of lists and fields of objects."""

from __future__ import annotations

from typing import Final

# What is counted without a pause: all of that holds the interpreter's lock.
_PIECE_BYTES: Final = 1 << 20
_SMALL_PIECE_BYTES: Final = 256 << 10
# Quotes that come with each comma or colon, at most: those of two strings.
_QUOTES_PER_ITEM: Final = 4
# Objects of one field within another have strings without commas: of few items quotes say nothing.
_FEW_ITEMS: Final = 1_000


def count_items(body: bytes, most: int) -> int:
    """How many items JSON has at any depth, but for the first of each list or object.

    Linear, and ends at `most`: whatever is beyond it counts for nothing. Text that is no JSON gives
    any answer.
    """
    found = _commas(body, most)
    if found < most:
        return found
    items = quotes = at = 0
    most_quotes = _QUOTES_PER_ITEM * max(most, _FEW_ITEMS)
    # every string but those of empty or one-field objects comes with a comma or a colon;
    # between two quotes that are not escaped all is outside of strings, or all is inside
    while at < len(body) and items < most and quotes <= most_quotes:
        piece = _piece(body, at)
        at += len(piece)
        texts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        items += sum(text.count(b",") for text in texts[quotes % 2 :: 2])
        quotes += len(texts) - 1
    return most if at < len(body) else min(most, items)


def _piece(body: bytes, at: int) -> bytes:
    """The next piece of a body; it ends behind an escape, not within one."""
    piece = body[at : at + _SMALL_PIECE_BYTES]
    backslashes = len(piece) - len(piece.rstrip(b"\\"))
    return body[at : at + len(piece) + 1] if backslashes % 2 else piece


def _commas(body: bytes, most: int) -> int:
    """As `count_items`, where text has no commas: in pieces, between which others may run."""
    found = 0
    for at in range(0, len(body), _PIECE_BYTES):
        found += body.count(b",", at, at + _PIECE_BYTES)
        if found >= most:
            break
    return found
