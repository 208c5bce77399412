"""The interface of what keeps responses, and the one of a single WebSocket connection."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Final, Protocol

from typing_extensions import override

from services.gateway.dialects.dialect import Budget, HeldBytes

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


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A response as a part of a conversation.

    Attributes:
        previous_id: the response that it went on from, or None.
        size: bytes of its contents.
    """

    previous_id: str | None
    size: int


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

    def link(self, response_id: str, *, owner: str) -> Link | None:
        """What a response of this owner's went on from, and its size, without its contents."""
        ...


class ConnectionResponses(Responses):
    """The responses that one connection may continue: its own, and all that are stored.

    Its own are bounded: 64 of them, and within the budget of all bodies. Where that has no room the
    oldest go first; what has no room even then is not kept.
    """

    keeps_unstored = True

    def __init__(self, store: Responses, budget: Budget) -> None:
        self._store = store
        self._budget = budget
        self._own: OrderedDict[str, tuple[StoredResponse, HeldBytes]] = OrderedDict()

    @override
    def put(self, record: StoredResponse, *, stored: bool) -> None:
        """Keeps a response; see `Responses`."""
        if stored:
            self._store.put(record, stored=True)
            return
        self.evict(record.response_id)
        while len(self._own) >= _MOST:
            self._evict_oldest()
        while (held := self._budget.hold(record.size())) is None:
            if not self._own:
                return
            self._evict_oldest()
        self._own[record.response_id] = (record, held)

    @override
    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        found = self._found(response_id, owner)
        return found or self._store.get(response_id, owner=owner)

    @override
    def link(self, response_id: str, *, owner: str) -> Link | None:
        """What a response of this owner's went on from, and its size."""
        found = self._found(response_id, owner)
        if found is not None:
            return Link(found.previous_id, found.size())
        return self._store.link(response_id, owner=owner)

    def evict(self, response_id: str) -> None:
        """Forgets a response that is not stored: going on from it has failed."""
        if response_id in self._own:
            self._own.pop(response_id)[1].give_back()

    def close(self) -> None:
        """Forgets all of them: the connection has ended."""
        while self._own:
            self._evict_oldest()

    def _found(self, response_id: str, owner: str) -> StoredResponse | None:
        found = self._own.get(response_id)
        return found[0] if found is not None and found[0].owner == owner else None

    def _evict_oldest(self) -> None:
        self._own.popitem(last=False)[1][1].give_back()
