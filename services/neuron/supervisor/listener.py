"""Who lives where: a worker's name, and what its tenants hear of its processes."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from services.backplane.errors import FleetError
from services.neuron.engine_api.model import ModelStats
from services.neuron.supervisor.link import WorkerLink


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerKey:
    """Which worker: the engine and the devices that it owns."""

    engine: str
    device_ids: tuple[str, ...]


class WorkerListener(Protocol):
    """Who lives in the slots: told of every process's coming and going."""

    def on_stats(self, instance_id: str, stats: ModelStats) -> None:
        """A model's load changed."""
        ...

    def on_worker_up(self, key: WorkerKey, link: WorkerLink) -> None:
        """A process is ready, the first or a later one."""
        ...

    def on_worker_down(
        self, key: WorkerKey, error: FleetError, *, for_good: bool, planned: bool
    ) -> None:
        """A process ended; `for_good`: no other will come; `planned`: it was being replaced."""
        ...

    def on_worker_changed(self) -> None:
        """What `Supervisor.view` says has changed."""
        ...
