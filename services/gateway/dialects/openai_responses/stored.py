"""Look-ups of stored responses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import bad, encode, unsupported
from services.gateway.dialects.common.paging import page_limit
from services.gateway.dialects.dialect import BodyTable, Head
from services.gateway.dialects.lookup import FleetQueries, Lookup
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.decode import decode_count
from services.gateway.dialects.openai_responses.fields import COUNT
from services.gateway.dialects.openai_responses.resource import ResponseAnswer
from services.gateway.dialects.openai_responses.store.history import History
from services.gateway.dialects.openai_responses.store.responses import StoredResponse
from services.gateway.dialects.openai_responses.store.store import ResponsesStore

_LONGEST_PAGE: Final = 100
_DEFAULT_PAGE: Final = 20


class DeletedAnswer(msgspec.Struct):
    """The fields of a receipt."""

    id: str
    object: str
    deleted: bool


class ItemsAnswer(msgspec.Struct):
    """The fields of a page of input items."""

    object: str
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class CountedAnswer(msgspec.Struct):
    """The fields of a count."""

    object: str
    input_tokens: int


class _StoredLookup(Lookup):
    """What all of them share."""

    def __init__(self, store: ResponsesStore) -> None:
        self._store = store
        self._history = History(store)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


class _RunLookup(_StoredLookup):
    """A look-up that needs to know which responses still run."""

    def __init__(self, store: ResponsesStore, runs: BackgroundRuns) -> None:
        super().__init__(store)
        self._runs = runs

    def _found(self, head: Head) -> StoredResponse:
        found = self._history.find(head.path["response_id"], owner=head.principal)
        return self._runs.settled(found)


class RetrieveResponse(_RunLookup):
    """One response, finished or in progress."""

    name: str = "openai_responses_retrieve"
    answers: type[Any] | None = ResponseAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The response.

        Raises:
            FleetError: NOT_FOUND; UNSUPPORTED_FIELD for one that shall be streamed again.
        """
        if head.query.get("stream", "false") not in {"false", "0", ""}:
            raise unsupported("stream", "a stored response is told whole, not streamed again.")
        return self._found(head).response


class DeleteResponse(_RunLookup):
    """Deletes one response; one that still runs is stopped."""

    name: str = "openai_responses_delete"
    answers: type[Any] | None = DeletedAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The receipt."""
        response_id = self._found(head).response_id
        self._runs.stop(response_id, owner=head.principal)
        self._store.delete(response_id, owner=head.principal)
        return encode({"id": response_id, "object": "response", "deleted": True})


class CancelResponse(_RunLookup):
    """Cancels a response that runs in the background; the others end with their connection."""

    name: str = "openai_responses_cancel"
    answers: type[Any] | None = ResponseAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The response, cancelled, or as it had ended before.

        Raises:
            FleetError: NOT_FOUND; BAD_REQUEST for one that was not run in the background.
        """
        found = self._found(head)
        if self._runs.stop(found.response_id, owner=head.principal):
            return self._runs.cancelled(found).response
        if not msgspec.json.decode(found.response, type=dict[str, Any])["background"]:
            raise FleetError(
                Reason.BAD_REQUEST,
                "Cannot cancel a synchronous response: close its connection instead.",
            )
        return found.response


class InputItems(_StoredLookup):
    """The input of one response, page by page."""

    name: str = "openai_responses_input_items"
    answers: type[Any] | None = ItemsAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """One page."""
        found = self._history.find(head.path["response_id"], owner=head.principal)
        items = msgspec.json.decode(found.input_items, type=list[dict[str, Any]])
        if head.query.get("order", "desc") != "asc":
            items.reverse()
        limit = page_limit(head.query.get("limit"), default=_DEFAULT_PAGE, most=_LONGEST_PAGE)
        rest = _behind(items, head.query.get("after"))
        page = rest[:limit]
        return encode(
            {
                "object": "list",
                "data": page,
                # typed clients take no null here
                "first_id": page[0]["id"] if page else "",
                "last_id": page[-1]["id"] if page else "",
                "has_more": len(rest) > len(page),
            }
        )


class CountInput(_StoredLookup):
    """Counts the tokens of a response's input."""

    name: str = "openai_responses_input_tokens"
    reads: BodyTable | None = COUNT
    answers: type[Any] | None = CountedAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The count."""
        read = functools.partial(decode_count, history=self._history)
        counted = await fleet.count_tokens(await fleet.decoded(read, body, head))
        return encode({"object": "response.input_tokens", "input_tokens": counted.tokens})


def _behind(items: Sequence[dict[str, Any]], after: str | None) -> Sequence[dict[str, Any]]:
    if after is None:
        return items
    for index, item in enumerate(items):
        if item["id"] == after:
            return items[index + 1 :]
    raise bad("after", f"{after!r} is not in the list.")
