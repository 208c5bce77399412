"""Worker key, its state, and callbacks when its process starts, dies or is replaced."""

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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlotView:
    """State of a worker as the neuron's status shows it.

    Attributes:
        key: which one.
        state: `starting`, `running`, `restarting`, `quarantined`.
        pid: of the running process, 0 where there is none.
        deaths: since the daemon started.
        last_words: of the last process that died; for operators, they may hold paths.
        quarantine_reason: why no process is started any more, for clients too.
        load_cycles: loads since the running process started.
    """

    key: WorkerKey
    state: str
    pid: int
    deaths: int
    last_words: str
    quarantine_reason: str
    load_cycles: int


class WorkerListener(Protocol):
    """Callbacks of worker processes: started, died, replaced. Called from the event loop."""

    def on_stats(self, instance_id: str, stats: ModelStats) -> None:
        """The numbers of a model's active and queued requests changed."""
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
        """A process was started: `Supervisor.view` has changed."""
        ...
