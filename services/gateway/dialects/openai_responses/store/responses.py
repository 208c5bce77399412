"""What the dialect asks of whoever keeps responses, and what one WebSocket connection keeps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from services.gateway.dialects.openai_responses.store.store import StoredResponse

# The newest responses of a connection, from which it may go on though they are not stored.
_MOST: Final = 64


class Responses(Protocol):
    """Keeps responses and finds them again."""

    @property
    def keeps_unstored(self) -> bool:
        """It wants to see responses with `store: false` too."""
        ...

    def put(self, record: StoredResponse, *, stored: bool) -> None:
        """Keeps a response; where it is not `stored`, no longer than the connection lives."""
        ...

    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        ...


class ConnectionResponses:
    """The responses that one connection may go on from: its own, and all that are stored."""

    keeps_unstored = True

    def __init__(self, store: Responses) -> None:
        self._store = store
        self._own: OrderedDict[str, StoredResponse] = OrderedDict()

    def put(self, record: StoredResponse, *, stored: bool) -> None:
        """Keeps a response; see `Responses`."""
        if stored:
            self._store.put(record, stored=True)
            return
        self._own[record.response_id] = record
        if len(self._own) > _MOST:
            self._own.popitem(last=False)

    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        found = self._own.get(response_id)
        if found is not None and found.owner == owner:
            return found
        return self._store.get(response_id, owner=owner)

    def evict(self, response_id: str) -> None:
        """Forgets a response that is not stored: going on from it has failed."""
        self._own.pop(response_id, None)
