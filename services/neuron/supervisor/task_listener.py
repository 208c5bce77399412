"""What a task is told while it runs in a worker."""

from __future__ import annotations

from typing import Protocol

from services.backplane.errors import FleetError
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Event


class TaskListener(Protocol):
    """Callbacks of one task. Called from the event loop.

    Attributes:
        caller: whose it is: the principal; where that is not known, the request itself.
    """

    caller: str

    def fail(self, error: FleetError) -> None:
        """Ends the task with an error that the daemon found."""
        ...

    def on_event(self, event: Event) -> None:
        """An event of the worker; after `Ended` or `Failed` none follows."""
        ...

    def on_time(self, charge: Charge) -> None:
        """Device time for the task, in time of one device; comes before the task's end."""
        ...

    def on_worker_lost(self, error: FleetError, *, is_alone: bool) -> None:
        """The process died with the task in it; nothing more will come from it.

        Args:
            error: why.
            is_alone: there was nothing else in it, no load either.
        """
        ...
