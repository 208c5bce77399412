"""The beginning and the end of a text that somebody else wrote, for messages and log lines."""

from __future__ import annotations

from typing import Final

_CUT: Final = " … "


def excerpt(text: str, most_bytes: int) -> str:
    """The text itself, or what is left of it without its middle.

    Args:
        text: of any length.
        most_bytes: that the excerpt has in UTF-8; at least 20.
    """
    if len(text) * 4 <= most_bytes:  # a character has four bytes at most
        return text
    # only as much of a huge text is encoded as may be kept
    encoded = (text if len(text) <= most_bytes else text[: most_bytes + 1]).encode(errors="replace")
    if len(encoded) <= most_bytes:
        return text
    tail = most_bytes // 4
    head = most_bytes - tail - len(_CUT.encode())
    end = text[-tail:].encode(errors="replace")[-tail:]
    return encoded[:head].decode(errors="ignore") + _CUT + end.decode(errors="ignore")
