"""What open consoles are shown, made once for all of them.

A reader keeps only the number of the last change that it has seen. What it is sent next are the
things that have changed behind that, each once and as it is now: a slow reader costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from services.backplane.changes import Changes
from services.gateway.api.operators.call import event_bytes
from services.gateway.console import encode
from services.gateway.console.ledger import RequestLedger
from services.gateway.dialects.common.json_body import encode as to_json
from services.gateway.routing.fleet_view import FleetView

# Requests that one event tells of; of a busier gateway the newest.
_MOST_REQUESTS: Final = 40
# Neurons that have gone; a reader who has missed more of them is given everything anew.
_MOST_GONE: Final = 1000


class _Thing(msgspec.Struct):
    """One thing that is shown, as JSON.

    Attributes:
        source: what it was made of, to see whether that was replaced.
        changed: the number of its last change.
    """

    source: Any
    data: bytes
    changed: int


class Feed:
    """Follows the fleet view, and what else is shown.

    Args:
        view: what the gateway knows of the fleet.
        ledger: the last requests.
        parts: what else is shown, by the name of its event: each makes a JSON value.

    Attributes:
        changes: moves on with every change.
    """

    def __init__(
        self,
        view: FleetView,
        ledger: RequestLedger,
        parts: Mapping[str, Callable[[], Any]],
    ) -> None:
        self._view = view
        self._ledger = ledger
        self._parts = parts
        self._neurons: dict[str, _Thing] = {}
        self._gone: dict[str, int] = {}
        self._models = _Thing(None, b"[]", 0)
        self._told = {name: _Thing(None, b"null", 0) for name in parts}
        self._number = 0
        self._forgotten = 0
        self._requests_seen = 0
        self.changes = Changes()

    @property
    def number(self) -> int:
        """Number of the newest change."""
        return self._number

    @property
    def event_id(self) -> str:
        """The state of the fleet that was shown last: the registry's start, and its revision."""
        return f"{self._view.registry_incarnation_id}:{self._view.revision or 0}"

    def refresh(self) -> None:
        """Takes in what has changed since the last time."""
        before = self._number
        self._number += 1
        is_changed = self._refresh_neurons()
        is_changed |= self._refresh_models()
        for name, made in self._parts.items():
            is_changed |= self._keep(self._told[name], None, made())
        if not is_changed:
            self._number = before
        if is_changed or self._ledger.count != self._requests_seen:
            self._requests_seen = self._ledger.count
            self.changes.bump()

    def snapshot(self, visitor: Mapping[str, Any]) -> bytes:
        """Everything, as one event.

        Args:
            visitor: what else this reader is told.
        """
        parts = b"".join(
            b',"' + name.encode() + b'":' + thing.data for name, thing in self._told.items()
        )
        neurons = b",".join(self._neurons[name].data for name in sorted(self._neurons))
        told = to_json(visitor)
        data = b'{"visitor":' + told + b',"neurons":[' + neurons + b'],"models":'
        return event_bytes("snapshot", data + self._models.data + parts + b"}", self.event_id)

    def since(self, number: int, requests: int) -> bytes | None:
        """What has changed behind a reader's last change; None where only a snapshot will do.

        Args:
            number: of the last change that it has seen.
            requests: how many requests had ended by then.
        """
        if number < self._forgotten:
            return None
        events: list[bytes] = []
        for name, changed in self._gone.items():
            if changed > number:
                data = to_json({"name": name})
                events.append(event_bytes("neuron_removed", data, self.event_id))
        events += [
            event_bytes("neuron", thing.data, self.event_id)
            for thing in self._neurons.values()
            if thing.changed > number
        ]
        if self._models.changed > number:
            events.append(event_bytes("catalogue", self._models.data, self.event_id))
        for name, thing in self._told.items():
            if thing.changed > number:
                events.append(event_bytes(name, thing.data))
        if self._ledger.count > requests:
            seen = self._ledger.since(requests, _MOST_REQUESTS)
            skipped = self._ledger.count - requests - len(seen)
            told = {"requests": seen, "skipped": skipped}
            events.append(event_bytes("request", to_json(told)))
        return b"".join(events)

    def _refresh_neurons(self) -> bool:
        is_changed = False
        for name in self._neurons.keys() - self._view.neurons.keys():
            del self._neurons[name]
            self._gone[name] = self._number
            is_changed = True
        for name, message in self._view.neurons.items():
            thing = self._neurons.get(name)
            if thing is None:
                thing = self._neurons[name] = _Thing(None, b"", self._number)
                self._gone.pop(name, None)
            if thing.source is not message:
                is_changed |= self._keep(thing, message, encode.neuron(message))
        while len(self._gone) > _MOST_GONE:
            oldest = next(iter(self._gone))
            self._forgotten = max(self._forgotten, self._gone.pop(oldest))
        return is_changed

    def _refresh_models(self) -> bool:
        catalogue = self._view.catalogue
        if self._models.source is catalogue:
            return False
        return self._keep(self._models, catalogue, encode.models(catalogue))

    def _keep(self, thing: _Thing, source: Any, value: Any) -> bool:
        """Takes in what a thing is now; False where that looks as before."""
        thing.source = source
        data = to_json(value)
        if data == thing.data:
            return False
        thing.data, thing.changed = data, self._number
        return True
