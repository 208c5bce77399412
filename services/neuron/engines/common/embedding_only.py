"""What an embedding model does with tasks: it refuses them, and says so at its next step."""

from __future__ import annotations

from collections.abc import Sequence

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Event, failed
from services.neuron.engine_api.task import Task


class RefusesTasks:
    """The generating half of `LoadedModel` for a model that cannot generate."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        """Refuses the task."""
        error = FleetError(Reason.WRONG_MODALITY, "This is an embedding model; it cannot generate.")
        self._events.append(failed(task.task_id, error))

    def cancel(self, task_id: int) -> None:
        """Does nothing: no task runs."""

    def credit(self, task_id: int, tokens: int) -> None:
        """Does nothing: no task runs."""

    @property
    def has_work(self) -> bool:
        """True if a refusal has to be told."""
        return bool(self._events)

    def step(self) -> list[Event]:
        """Tells refusals."""
        events, self._events = self._events, []
        return events
