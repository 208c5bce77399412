"""Unloads that an operator has asked for together, and what is left of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence

from services.backplane.errors import FleetError
from services.registry.control.control_plane import ControlPlane
from services.registry.placement import errors
from services.registry.placement.orders import UnloadReason
from services.registry.term import LeaderTerm


@dataclasses.dataclass(frozen=True, slots=True)
class Remaining:
    """What has not been unloaded yet, and the bytes that are free by now."""

    instances: int
    active_requests: int
    freed_bytes: int


class DrainTracker:
    """The unloads of one operator's call.

    The first error is kept in `error`; the other unloads go on.

    Args:
        replicas: (neuron, instance id) of each.
        drain_seconds: how long running requests may take; None leaves it to policy.
    """

    def __init__(
        self,
        control: ControlPlane,
        instances: Sequence[tuple[str, str]],
        why: UnloadReason,
        drain_seconds: float | None,
    ) -> None:
        self._control = control
        self._open = dict.fromkeys(instances)
        self._why = why
        self._drain_seconds = drain_seconds
        self._freed = 0
        self.error: FleetError | None = None

    def begin(self) -> None:
        """Orders all unloads; instances that are gone by now are left out."""
        for neuron, instance_id in list(self._open):
            member = self._control.fleet_state.fleet.members.get(neuron)
            instance = member.instance(instance_id) if member else None
            if instance is None:
                del self._open[neuron, instance_id]
                continue
            held = sum(instance.memory.values())
            self._control.unload(
                neuron,
                instance,
                self._why,
                drain_seconds=self._drain_seconds,
                on_end=functools.partial(self._end, (neuron, instance_id), held),
            )

    def left(self) -> Remaining:
        """What has not been unloaded yet, and the bytes that are free by now."""
        active = 0
        for neuron, instance_id in self._open:
            member = self._control.fleet_state.fleet.members.get(neuron)
            instance = member.instance(instance_id) if member else None
            active += instance.in_flight if instance else 0
        return Remaining(len(self._open), active, self._freed)

    def _end(self, instance: tuple[str, str], held: int, error: FleetError | None) -> None:
        self._open.pop(instance, None)
        if error is None:
            self._freed += held
        else:
            self.error = self.error or error


async def watched(term: LeaderTerm, tracker: DrainTracker) -> AsyncIterator[Remaining]:
    """Starts unloads, and yields those that are left whenever that changes, until none is.

    Raises:
        FleetError: the first error of an unload, or that the leadership is over.
    """
    tracker.begin()
    term.wake()
    told = None
    while True:
        version = term.changes.version
        left = tracker.left()
        if left != told:
            told = left
            yield left
        if tracker.error is not None:
            raise tracker.error
        if not left.instances:
            return
        if term.ended.is_set():
            raise errors.stopped_leading()
        await term.changes.after(version)
