"""The interface of what keeps responses, and the one of a single WebSocket connection."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Final, Protocol

from typing_extensions import override

# The newest responses of a connection, from which it may go on though they are not stored.
_MOST: Final = 64


@dataclasses.dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response as it was returned, and the input of its own request.

    Attributes:
        response_id: its id.
        previous_id: the response that it went on from, or None.
        owner: whose it is: a principal, or empty. Nobody else finds it.
        response: the response object, JSON.
        input_items: its own input items, a JSON list; earlier ones are those of `previous_id`.
    """

    response_id: str
    previous_id: str | None
    owner: str
    response: bytes
    input_items: bytes

    def size(self) -> int:
        """Bytes of its contents."""
        return len(self.response) + len(self.input_items)


class Responses(Protocol):
    """Keeps responses and finds them again.

    Attributes:
        keeps_unstored: it is given responses with `store: false` too.
    """

    keeps_unstored: bool

    def put(self, record: StoredResponse, *, stored: bool) -> None:
        """Keeps a response; where it is not `stored`, only while the connection lives."""
        ...

    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        ...


class ConnectionResponses(Responses):
    """The responses that one connection may continue: its own, and all that are stored."""

    keeps_unstored = True

    def __init__(self, store: Responses) -> None:
        self._store = store
        self._own: OrderedDict[str, StoredResponse] = OrderedDict()

    @override
    def put(self, record: StoredResponse, *, stored: bool) -> None:
        """Keeps a response; see `Responses`."""
        if stored:
            self._store.put(record, stored=True)
            return
        self._own[record.response_id] = record
        if len(self._own) > _MOST:
            self._own.popitem(last=False)

    @override
    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        found = self._own.get(response_id)
        if found is not None and found.owner == owner:
            return found
        return self._store.get(response_id, owner=owner)

    def evict(self, response_id: str) -> None:
        """Forgets a response that is not stored: going on from it has failed."""
        self._own.pop(response_id, None)
