"""Conversations chained by stored responses, and items named by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import bad
from services.gateway.dialects.openai_responses.store.responses import Responses, StoredResponse

# A chain longer than this is a loop or a mistake.
_LONGEST_CHAIN: Final = 1000


class History:
    """Looks earlier responses and their items up."""

    def __init__(self, store: Responses) -> None:
        self._store = store

    def find(self, response_id: str, *, owner: str) -> StoredResponse:
        """One response.

        Raises:
            FleetError: NOT_FOUND.
        """
        found = self._store.get(response_id, owner=owner)
        if found is None:
            raise FleetError(Reason.NOT_FOUND, f"Response with id '{response_id}' not found.")
        return found

    def before(self, response_id: str, *, owner: str) -> list[dict[str, Any]]:
        """All items that led to a response, and its own output, oldest first.

        Raises:
            FleetError: NOT_FOUND with the field, where the chain has a gap.
        """
        chain: list[StoredResponse] = []
        next_id: str | None = response_id
        while next_id is not None and len(chain) < _LONGEST_CHAIN:
            found = self._store.get(next_id, owner=owner)
            if found is None:
                message = f"Previous response with id '{next_id}' not found."
                raise FleetError(Reason.NOT_FOUND, message, field="previous_response_id")
            chain.append(found)
            next_id = found.previous_id
        return [item for one in reversed(chain) for item in _items(one)]

    def resolve(self, items: list[dict[str, Any]], *, owner: str) -> list[dict[str, Any]]:
        """The same items, with those in place that were only named (`item_reference`)."""
        if all(item.get("type") != "item_reference" for item in items):
            return items
        return [
            self._named(item, f"input.{index}.id", owner=owner)
            if item.get("type") == "item_reference"
            else item
            for index, item in enumerate(items)
        ]

    def _named(self, item: dict[str, Any], path: str, *, owner: str) -> dict[str, Any]:
        """An output item by its id, which names its response: `msg_<response>_<index>`."""
        item_id = str(item.get("id"))
        parts = item_id.split("_")
        found = None
        if len(parts) == 3:  # noqa: PLR2004  kind, response, index
            found = self._store.get(f"resp_{parts[1]}", owner=owner)
        for one in _items(found) if found else ():
            if one.get("id") == item_id:
                return one
        raise bad(path, f"Item with id '{item_id}' not found.")


def _items(found: StoredResponse) -> Iterator[dict[str, Any]]:
    yield from msgspec.json.decode(found.input_items, type=list[dict[str, Any]])
    yield from msgspec.json.decode(found.response, type=dict[str, Any])["output"]
