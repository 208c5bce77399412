"""What routing asks of a request besides its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from cortex.v1 import registry_service_pb2 as registry
from services.gateway.streaming.placement_status import PlacementSink


class RestartableSink(PlacementSink, Protocol):
    """What `Dispatch` asks of a request besides: may it run a second time, and from where."""

    @property
    def may_restart(self) -> bool:
        """True while the request may run again from the beginning."""
        ...

    @property
    def may_go_on(self) -> bool:
        """True while the request may go on behind the tokens that were made."""
        ...

    @property
    def made(self) -> Sequence[int]:
        """Ids of the tokens that are known."""
        ...


class UnarySink(PlacementSink):
    """Of a call with one answer: nobody is told what it waits for, and it may always restart."""

    may_restart = True
    may_go_on = False
    made = ()

    @property
    @override
    def is_committed(self) -> bool:
        """False: nothing is sent before the answer is whole."""
        return False

    @override
    def waiting(self, step: registry.EnsureModelResponse) -> None:
        """Ignores the step: nobody is told of it."""
        del step
