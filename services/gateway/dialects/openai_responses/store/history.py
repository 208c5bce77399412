"""Conversations chained by stored responses, and items named by their ids.

What is read counts as a part of the request that names it: a body of a few bytes can lead to
hundreds of megabytes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import bad
from services.gateway.dialects.dialect import ReadAllowance
from services.gateway.dialects.openai_responses.store.responses import Responses, StoredResponse

# A chain longer than this is a loop or a mistake.
_LONGEST_CHAIN: Final = 1000
_PREVIOUS: Final = "previous_response_id"


class _Output(msgspec.Struct):
    """What of a response is part of the conversation; the rest is not even decoded."""

    output: list[dict[str, Any]]


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

    def before(
        self, response_id: str, *, owner: str, allowance: ReadAllowance | None
    ) -> list[dict[str, Any]]:
        """All items that led to a response, and its own output, oldest first.

        Raises:
            FleetError: with the field: NOT_FOUND, where the chain has a gap; BAD_REQUEST, where it
                has more than 1000 responses; what the allowance raises.
            TooMuchHereError: as the allowance.
        """
        chain: list[str] = []
        size = 0
        next_id: str | None = response_id
        while next_id is not None:
            link = self._store.link(next_id, owner=owner)
            if link is None:
                raise _lacks(next_id)
            if len(chain) == _LONGEST_CHAIN:
                told = f"It goes on from more than {_LONGEST_CHAIN} responses; begin a new one."
                raise bad(_PREVIOUS, told)
            chain.append(next_id)
            size += link.size
            next_id = link.previous_id
        if allowance is not None:
            allowance.take(size)
        items: list[dict[str, Any]] = []
        for each in reversed(chain):
            found = self._store.get(each, owner=owner)
            if found is None:  # it was deleted meanwhile
                raise _lacks(each)
            items += _items(found, allowance)
        return items

    def resolve(
        self, items: list[dict[str, Any]], *, owner: str, allowance: ReadAllowance | None
    ) -> list[dict[str, Any]]:
        """Items with each `item_reference` replaced by the stored item that it names.

        Raises:
            FleetError: BAD_REQUEST, there is no such item; what the allowance raises.
            TooMuchHereError: as the allowance.
        """
        if all(item.get("type") != "item_reference" for item in items):
            return items
        known = _KnownItems(self._store, owner, allowance)
        return [
            known.named(item, f"input.{index}.id") if item.get("type") == "item_reference" else item
            for index, item in enumerate(items)
        ]


class _KnownItems:
    """Items of the responses that one request names: each response is read once.

    An item that is named twice counts twice, since it is in the conversation twice.
    """

    def __init__(self, store: Responses, owner: str, allowance: ReadAllowance | None) -> None:
        self._store, self._owner, self._allowance = store, owner, allowance
        self._read: dict[str, dict[str, tuple[dict[str, Any], int]]] = {}

    def named(self, item: dict[str, Any], path: str) -> dict[str, Any]:
        """An output item by its id, which names its response: `msg_<response>_<index>`."""
        item_id = str(item.get("id"))
        parts = item_id.split("_")
        if len(parts) == 3:  # noqa: PLR2004  kind, response, index
            found = self._items_of(f"resp_{parts[1]}").get(item_id)
            if found is not None:
                if self._allowance is not None:
                    self._allowance.take(found[1])
                return found[0]
        raise bad(path, f"Item with id '{item_id}' not found.")

    def _items_of(self, response_id: str) -> dict[str, tuple[dict[str, Any], int]]:
        if response_id not in self._read:
            self._read[response_id] = self._loaded(response_id)
        return self._read[response_id]

    def _loaded(self, response_id: str) -> dict[str, tuple[dict[str, Any], int]]:
        link = self._store.link(response_id, owner=self._owner)
        if link is None:
            return {}
        if self._allowance is not None:
            self._allowance.take(link.size)
        found = self._store.get(response_id, owner=self._owner)
        return {
            str(one.get("id")): (one, len(msgspec.json.encode(one)))
            for one in (_items(found, self._allowance) if found is not None else ())
        }


def _items(found: StoredResponse, allowance: ReadAllowance | None) -> list[dict[str, Any]]:
    """The items of one response: those of its request, and its output."""
    if allowance is not None:
        allowance.take_items(found.input_items)
        allowance.take_items(found.response)
    asked: list[dict[str, Any]] = msgspec.json.decode(found.input_items)
    return [*asked, *msgspec.json.decode(found.response, type=_Output).output]


def _lacks(response_id: str) -> FleetError:
    message = f"Previous response with id '{response_id}' not found."
    return FleetError(Reason.NOT_FOUND, message, field=_PREVIOUS)
