"""Decodes bodies without holding up other requests.

Decoding one item of a body costs microseconds, and a body may hold millions of them. So the items
are bounded, and a large body is decoded in a thread, where the interpreter changes to the event
loop every few milliseconds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head

T = TypeVar("T")

# What is decoded at once: a hop to a thread costs as much as these bytes.
_AT_ONCE_BYTES: Final = 128 << 10
# An item and its comma.
_LEAST_ITEM_BYTES: Final = 2
# What is counted without a pause.
_PIECE_BYTES: Final = 1 << 20
# A JSON string; possessive, so that no way back is kept for each of its escapes.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class Decoding:
    """Runs the decoders of bodies.

    Args:
        most_items: `gateway.max_body_items`; a body with more is refused before it is decoded.
    """

    def __init__(self, *, most_items: int) -> None:
        self._most_items = most_items
        self._at_once = min(_AT_ONCE_BYTES, most_items * _LEAST_ITEM_BYTES)
        # two, so that one large body does not wait for another
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decoding")

    async def run(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        """Decodes a body with `read`, in a thread where it is large.

        Cancelling it leaves a body that waits for a thread undecoded.

        Raises:
            FleetError: BODY_TOO_LARGE: it has more items than it may; or what `read` raises.
        """
        if len(body) <= self._at_once:
            return read(body, head)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._run, read, body, head)

    def close(self) -> None:
        """Ends the threads; what they are decoding is decoded to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        if has_more_items(body, self._most_items):
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"The body has more than {self._most_items} items, which is the most that"
                " gateway.max_body_items allows.",
            )
        return read(body, head)


def has_more_items(body: bytes, most: int) -> bool:
    """True if JSON has more items than that: entries of lists and fields of objects, at any depth.

    Linear, and ends at the item that is one too many. Text that is no JSON gives any answer.
    """
    if not _has_more_commas(body, most):
        return False
    items = at = 0
    # every string but those of empty or one-field objects comes with a comma or a colon
    for strings, found in enumerate(_STRING.finditer(body)):
        items += body.count(b",", at, found.start())
        at = found.end()
        if items >= most or strings > _LEAST_ITEM_BYTES * most:
            return True
    return items + body.count(b",", at) >= most


def _has_more_commas(body: bytes, most: int) -> bool:
    """As `has_more_items`, where text has no commas: in pieces, between which others may run."""
    found = 0
    for at in range(0, len(body), _PIECE_BYTES):
        found += body.count(b",", at, at + _PIECE_BYTES)
        if found >= most:
            return True
    return False
