"""Decodes bodies without holding up other requests.

Decoding one item of a body costs microseconds, and a body may hold millions of them. So the items
are bounded, and a large body is decoded in a thread, where the interpreter changes to the event
loop every few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.item_count import count_items
from services.gateway.dialects.dialect import Head, TooMuchHereError

T = TypeVar("T")

# What is decoded at once: a hop to a thread costs as much as these bytes.
_AT_ONCE_BYTES: Final = 128 << 10
# An item and its comma.
_LEAST_ITEM_BYTES: Final = 2


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
        """Decodes a body with `read`, in a thread where it is large or leads to much else.

        Cancelling it leaves a body that waits for a thread undecoded.

        Raises:
            FleetError: BODY_TOO_LARGE: it has more items than it may; or what `read` raises.
        """
        if len(body) <= self._at_once:
            with contextlib.suppress(TooMuchHereError):  # a conversation that it goes on from
                return read(body, head)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._run, read, body, head)

    def close(self) -> None:
        """Ends the threads; what they are decoding is decoded to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        if count_items(body, self._most_items) >= self._most_items:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"The body has more than {self._most_items} items, which is the most that"
                " gateway.max_body_items allows.",
            )
        return read(body, head)
