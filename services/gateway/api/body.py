"""Reads the body of a request, within a budget that all bodies share, and at a least rate.

What a request has read besides, a stored conversation, counts as part of it.
"""

from __future__ import annotations

import threading
import time
from typing import Final, cast

from starlette.types import Receive
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.item_count import count_items
from services.gateway.dialects.dialect import ReadAllowance, TooMuchHereError
from services.gateway.http1.budget import BodyBudget, Pace

_BOM: Final = b"\xef\xbb\xbf"
_RETRY_SECONDS: Final = 5.0
# What may be read beside a body without a thread: a hop to one costs as much.
_HERE_BYTES: Final = 128 << 10
# What is stored of an item has more fields than what was sent.
_STORED_FIELDS: Final = 4
_COPIED_BYTES: Final = 1 << 20
_STORED_FIELD: Final = "previous_response_id"


class ClientGoneError(Exception):
    """The client has left before its whole request was read."""


class IncomingBody(ReadAllowance):
    """One body, from its first byte until its request is over.

    Args:
        max_bytes: of this body and of what is read besides.
        most_items: of what is read besides.
        budget: what all bodies together may have.
        pace: how slowly it may come.
    """

    __slots__ = (
        "_began_at",
        "_budget",
        "_is_over",
        "_items",
        "_max_bytes",
        "_most_items",
        "_pace",
        "_read_here",
        "_size",
        "_thread",
    )

    def __init__(
        self, *, max_bytes: int, most_items: int = 0, budget: BodyBudget, pace: Pace
    ) -> None:
        self._max_bytes = max_bytes
        self._most_items = most_items
        self._items = self._read_here = 0
        self._thread = threading.get_ident()
        self._is_over = False
        self._budget = budget
        self._pace = pace
        self._size = 0
        self._began_at = time.monotonic()

    async def read(self, receive: Receive) -> bytes:
        """The whole body, without a byte order mark.

        Raises:
            FleetError: BODY_TOO_LARGE: more than `max_bytes`; QUEUE_FULL: the budget is used up.
                The rest is not read.
            ClientGoneError: it never came to its end.
        """
        whole: bytearray | None = None
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece: bytes = message.get("body", b"")
            self._take(len(piece))
            if whole is not None:
                whole += piece
            elif message.get("more_body", False):
                whole = bytearray(piece)
            else:
                return piece.removeprefix(_BOM)
            if not message.get("more_body", False):
                return _without_mark(whole)

    def is_late(self, now: float) -> bool:
        """True if less of it has come than the pace asks for."""
        return now - self._began_at > self._pace.seconds(self._size)

    def release(self) -> None:
        """Gives its bytes back to the budget; no more are taken."""
        budget = self._budget
        with budget.lock:
            self._is_over = True
            budget.held_bytes -= self._size
            self._size = 0

    @override
    def take(self, size: int) -> None:
        if threading.get_ident() == self._thread:
            self._read_here += size
            if self._read_here > _HERE_BYTES:
                raise TooMuchHereError
        if self._size + size > self._max_bytes:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"{_STORED_FIELD}: With the responses that it goes on from, the request is larger"
                f" than {self._max_bytes} bytes (gateway.max_body_bytes).",
                field=_STORED_FIELD,
            )
        self._take(size)

    @override
    def take_items(self, text: bytes) -> None:
        most = self._most_items * _STORED_FIELDS
        self._items += 1 + count_items(text, most)
        if self._items > most:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"{_STORED_FIELD}: The responses that it goes on from have more than"
                f" {most} items, which is the most that gateway.max_body_items allows.",
                field=_STORED_FIELD,
            )

    def _take(self, size: int) -> None:
        if self._size + size > self._max_bytes:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"The body is larger than {self._max_bytes} bytes (gateway.max_body_bytes).",
            )
        budget = self._budget
        with budget.lock:
            if self._is_over:  # a thread still reads for it
                raise FleetError(Reason.CANCELLED, "The client has gone.")
            held = budget.held_bytes + size
            if held > budget.most_bytes:
                raise no_room()
            budget.held_bytes = held
            self._size += size


def _without_mark(body: bytearray) -> bytes:
    if body.startswith(_BOM):
        del body[: len(_BOM)]
    # Readers take it for bytes; a copy of a large one would take as much again.
    return bytes(body) if len(body) <= _COPIED_BYTES else cast("bytes", body)


def no_room() -> FleetError:
    """The error for a body that the budget of all bodies has no room for: QUEUE_FULL."""
    return FleetError(
        Reason.QUEUE_FULL,
        "The bodies of other requests take all the memory that there is for them"
        " (gateway.bodies_bytes).",
        retry_after_seconds=_RETRY_SECONDS,
    )
