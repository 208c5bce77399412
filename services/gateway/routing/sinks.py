"""What routing asks of a request besides its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from cortex.v1 import registry_service_pb2 as registry
from services.gateway.streaming.placement_status import PlacementSink


class RestartableSink(PlacementSink, Protocol):
    """What `Dispatch` asks of a request before a second attempt: may it run again, from where."""

    @property
    def may_restart(self) -> bool:
        """True while the request may run again from the beginning."""
        ...

    @property
    def may_go_on(self) -> bool:
        """True while another instance may continue behind the tokens generated so far."""
        ...

    @property
    def made(self) -> Sequence[int]:
        """Ids of the tokens that were generated so far."""
        ...


class UnarySink(PlacementSink):
    """The sink of a call with a single answer: can always restart, reports no progress."""

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
        """Ignores the step: a call with one answer shows no progress."""
        del step
