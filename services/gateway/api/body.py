"""Reads the body of a request, within a budget that all bodies share, and at a least rate."""

from __future__ import annotations

import time
from typing import Final

from starlette.types import Receive

from services.backplane.errors import FleetError, Reason
from services.gateway.http1.budget import BodyBudget, OverBudgetError, Pace

_BOM: Final = b"\xef\xbb\xbf"
_RETRY_SECONDS: Final = 5.0


class ClientGoneError(Exception):
    """The client has left before its whole request was read."""


class IncomingBody:
    """One body, from its first byte until its request is over.

    Args:
        max_bytes: of this body.
        budget: what all bodies together may have.
        pace: how slowly it may come.
    """

    __slots__ = ("_began_at", "_budget", "_max_bytes", "_pace", "_size")

    def __init__(self, *, max_bytes: int, budget: BodyBudget, pace: Pace) -> None:
        self._max_bytes = max_bytes
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
        pieces: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece: bytes = message.get("body", b"")
            self._take(len(piece))
            if not message.get("more_body", False):
                body = b"".join([*pieces, piece]) if pieces else piece
                return body.removeprefix(_BOM)
            pieces.append(piece)

    def is_late(self, now: float) -> bool:
        """True if less of it has come than the pace asks for."""
        return now - self._began_at > self._pace.seconds(self._size)

    def release(self) -> None:
        """Gives its bytes back to the budget."""
        self._budget.give_back(self._size)
        self._size = 0

    def _take(self, size: int) -> None:
        if self._size + size > self._max_bytes:
            raise FleetError(
                Reason.BODY_TOO_LARGE,
                f"The body is larger than {self._max_bytes} bytes (gateway.max_body_bytes).",
            )
        try:
            self._budget.take(size)
        except OverBudgetError:
            raise FleetError(
                Reason.QUEUE_FULL,
                "The bodies of other requests take all the memory that there is for them"
                " (gateway.bodies_bytes).",
                retry_after_seconds=_RETRY_SECONDS,
            ) from None
        self._size += size
