"""What the registry has done and seen lately: loads, evictions, neurons that come and go."""

from __future__ import annotations

import collections
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from cortex.v1 import operator_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.changes import Changes
from services.registry.placement import errors
from services.registry.placement.orders import (
    Event,
    LoadEnded,
    LoadOrder,
    NeuronLost,
    Redirected,
    UnloadEnded,
    UnloadOrder,
)

_KEPT: Final = 1000


class EventHistory:
    """The last events of a term; the oldest are forgotten.

    Args:
        clock: seconds since the epoch.

    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: collections.deque[pb.FleetEvent] = collections.deque(maxlen=_KEPT)
        self._number = 0
        self._changes = Changes()
        self._is_over = False

    async def watch(self, after: int, *, follow: bool) -> AsyncIterator[pb.FleetEvent]:
        """Events of greater numbers, oldest first.

        Args:
            after: the number.
            follow: also those that come, until the reader leaves.

        Raises:
            FleetError: NOT_LEADER: the term has ended.
        """
        while not self._is_over:
            version = self._changes.version
            for event in [each for each in self._events if each.number > after]:
                yield event
                after = event.number
            if not follow:
                return
            await self._changes.after(version)
        raise errors.stopped_leading()

    def close(self) -> None:
        """Ends the streams of those who read events: the term has ended."""
        self._is_over = True
        self._changes.bump()

    def note(
        self,
        kind: str,
        *,
        model: str = "",
        neuron: str = "",
        instance_id: str = "",
        detail: str = "",
        seconds: float | None = None,
    ) -> None:
        """Remembers an event; see `FleetEvent` of the contract."""
        self._number += 1
        event = pb.FleetEvent(
            number=self._number,
            at=protobuf_time.timestamp(self._clock()),
            kind=kind,
            model=model,
            neuron=neuron,
            instance_id=instance_id,
            detail=detail,
        )
        if seconds is not None:
            event.elapsed.CopyFrom(protobuf_time.duration(seconds))
        self._events.append(event)
        self._changes.bump()

    def record(self, event: Event) -> None:
        """Remembers what was ordered and how it ended; who stopped waiting is left out."""
        match event:
            case LoadOrder():
                self.note("load.ordered", model=event.profile.model, neuron=event.neuron)
            case LoadEnded():
                failure = f"{event.failure}: {event.message}" if event.failure else ""
                self.note(
                    "load.failed" if event.failure else "model.loaded",
                    model=event.model,
                    neuron=event.neuron,
                    detail=failure,
                    seconds=event.seconds,
                )
            case UnloadOrder():
                whom = f", for {event.for_model}" if event.for_model else ""
                why = f": {event.reason}" if event.reason else ""
                self.note(
                    "unload.ordered",
                    model=event.model,
                    neuron=event.neuron,
                    instance_id=event.instance_id,
                    detail=f"{event.why.value}{whom}{why}",
                )
            case UnloadEnded():
                self.note(
                    "unload.failed" if event.failure else "model.unloaded",
                    model=event.order.model,
                    neuron=event.order.neuron,
                    instance_id=event.order.instance_id,
                    detail=event.failure,
                    seconds=event.seconds,
                )
            case Redirected():
                self.note(
                    "placement.redirected",
                    model=event.model,
                    neuron=event.to_neuron,
                    detail=f"not to {event.neuron}: {event.reason}",
                    seconds=event.seconds,
                )
            case NeuronLost():
                self.note("neuron.lost", neuron=event.neuron, detail="no report within its lease")
            case _:
                return
