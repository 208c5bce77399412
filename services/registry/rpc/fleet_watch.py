"""Streams of the fleet's changes to gateways: resumable, and bounded without queues.

A watcher keeps only the revision that it has seen. What it is sent next is read from the fleet's
own table of changes, each member once and as it is now; so a slow watcher costs nothing and misses
nothing, and one that was away too long gets a snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from cortex.v1 import registry_service_pb2
from services.backplane.changes import Changes
from services.backplane.first_ended import first_ended
from services.backplane.process.faults import Faults
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.records import Member
from services.registry.joining.revocations import Revocations
from services.registry.rpc import encode
from services.registry.rpc.model_list import ModelDirectory

# A watcher that hears nothing for so long is told that there is nothing.
_PROGRESS_SECONDS: Final = 5.0
# Changes that come together are sent together.
_GATHER_SECONDS: Final = 0.005

# Pause after making the list of models, as a multiple of what it took.
_VIEW_SHARE: Final = 10.0

Response = registry_service_pb2.WatchFleetResponse


class Watchers:
    """All WatchFleet streams of one registry.

    Args:
        control: has the fleet.
        model_list: makes the list of models.
        changes: moves on with every change that watchers want to hear of.
        incarnation_id: of this term; a revision of another one means nothing here.
        revocations: which certificates are refused.
        faults: what nobody foresaw; a member that cannot be told of is left out.

    Attributes:
        count: how many streams are open.
    """

    def __init__(
        self,
        control: ControlPlane,
        model_list: ModelDirectory,
        changes: Changes,
        *,
        incarnation_id: str,
        revocations: Revocations,
        faults: Faults,
    ) -> None:
        self._revocations = revocations
        self._control = control
        self._model_list = model_list
        self._changes = changes
        self._incarnation_id = incarnation_id
        self._faults = faults
        self._view = registry_service_pb2.CatalogueView()
        self._view_version = 0
        self._view_revision = 0
        self._view_next = 0.0
        self.count = 0

    async def watch(
        self, after_revision: int | None, incarnation_id: str
    ) -> AsyncIterator[Response]:
        """Streams changes for ever.

        Args:
            after_revision: the last that the watcher has seen; None for a snapshot.
            incarnation_id: whose revision that is; another registry's means nothing here.
        """
        seen = after_revision if incarnation_id == self._incarnation_id else None
        revoked_version = -1 if self._revocations.are_kept else 0
        self.count += 1
        try:
            while True:
                version = self._changes.version
                for response in self._since(seen):
                    yield response
                    seen = response.revision
                if revoked_version != self._revocations.changes.version:
                    revoked_version = self._revocations.changes.version
                    yield self._revoked(seen or 0)
                if await first_ended(self._changes.after(version), seconds=_PROGRESS_SECONDS):
                    await asyncio.sleep(_GATHER_SECONDS)
                else:
                    seen = self._control.fleet_state.fleet.revision
                    yield self._response(seen, progress=registry_service_pb2.WatchProgress())
        finally:
            self.count -= 1

    def _revoked(self, seen: int) -> Response:
        return self._response(
            seen,
            progress=registry_service_pb2.WatchProgress(),
            revoked=encode.revoked_message(self._revocations.serials),
        )

    def _since(self, seen: int | None) -> list[Response]:
        """All that a watcher does not know yet, in order of revision."""
        self._refresh_view()
        fleet = self._control.fleet_state.fleet
        changes = None if seen is None else fleet.changed_since(seen)
        if seen is None or changes is None:
            return [self._snapshot()]
        responses: list[Response] = []
        for revision, name, is_member in changes:
            if is_member:
                messages = self._messages([fleet.members[name]])
                responses += [self._response(revision, neuron_changed=m) for m in messages]
            else:
                responses.append(self._response(revision, neuron_removed=name))
        if self._view_revision > seen:
            responses.append(self._response(self._view_revision, catalogue=self._view))
            responses.sort(key=lambda r: r.revision)
        return responses

    def _snapshot(self) -> Response:
        fleet = self._control.fleet_state.fleet
        snapshot = registry_service_pb2.FleetSnapshot(
            neurons=self._messages(fleet.members.values()),
            catalogue=self._view,
        )
        return self._response(fleet.revision, snapshot=snapshot)

    def _messages(self, members: Iterable[Member]) -> list[registry_service_pb2.Neuron]:
        messages: list[registry_service_pb2.Neuron] = []
        for member in members:
            with self._faults.contained("fleet-watch", neuron_id=member.name):
                messages.append(encode.neuron_message(member))
        return messages

    def _refresh_view(self) -> None:
        membership = self._control.membership
        if self._view_version == membership.models_version:
            return
        began = time.perf_counter()
        if began < self._view_next:
            return
        self._view_version = membership.models_version
        view = self._view
        with self._faults.contained("model-list"):
            view = self._model_list.view(self._control.cache, membership.hardware_version)
            view.settling = self._control.is_settling
        # with thousands of neurons a view takes long to make: a tenth of the time is enough for it
        self._view_next = began + _VIEW_SHARE * (time.perf_counter() - began)
        if view != self._view or not self._view_revision:
            self._view = view
            self._view_revision = self._control.fleet_state.fleet.mark()

    def _response(self, revision: int, **event: Any) -> Response:
        return Response(revision=revision, registry_incarnation_id=self._incarnation_id, **event)
