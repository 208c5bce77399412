"""Worker key, its state, and callbacks when its process starts, dies or is replaced."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from services.backplane.errors import FleetError
from services.neuron.engine_api.cache import CacheChanges
from services.neuron.engine_api.model import ModelStats
from services.neuron.supervisor.link import WorkerLink


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerKey:
    """Identifies a worker by its engine and the devices that it owns.

    Attributes:
        is_divided: its models are divided by tensor parallelism: it is a group of processes, one
            for each device, which live and die together.
    """

    engine: str
    device_ids: tuple[str, ...]
    is_divided: bool = False

    @property
    def shown_ids(self) -> tuple[str, ...]:
        """The devices that its first process sees; with tensor parallelism only the first."""
        return self.device_ids[:1] if self.is_divided else self.device_ids

    @property
    def device_count(self) -> int:
        """How many devices work for its models at the same time; at least 1."""
        return max(1, len(self.device_ids))

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables by which its first process learns of the other devices."""
        return {"CORTEX_RANK_DEVICE_IDS": ",".join(self.device_ids)} if self.is_divided else {}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlotView:
    """State of a worker as the neuron's status shows it.

    Attributes:
        key: which one.
        state: `starting`, `running`, `restarting`, `quarantined`.
        pid: of the running process, 0 where there is none.
        rank_pids: of the other processes of its group.
        deaths: since the daemon started.
        last_words: of the last process that died; for operators, they may hold paths.
        quarantine_reason: why no process is started any more, for clients too.
        load_cycles: loads since the running process started.
    """

    key: WorkerKey
    state: str
    pid: int
    rank_pids: tuple[int, ...]
    deaths: int
    last_words: str
    quarantine_reason: str
    load_cycles: int


class WorkerListener(Protocol):
    """Callbacks of worker processes: started, died, replaced. Called from the event loop."""

    def on_stats(self, instance_id: str, stats: ModelStats) -> None:
        """The numbers of a model's active and queued requests changed."""
        ...

    def on_cache(self, instance_id: str, news: CacheChanges) -> None:
        """What a model's cache holds changed."""
        ...

    def on_worker_up(self, key: WorkerKey, link: WorkerLink) -> None:
        """Called when a process is ready, the first or a later one."""
        ...

    def on_worker_down(
        self, key: WorkerKey, error: FleetError, *, for_good: bool, planned: bool
    ) -> None:
        """A process ended; `for_good`: no other will come; `planned`: it was being replaced."""
        ...

    def on_worker_changed(self) -> None:
        """Called when a process was started: `Supervisor.view` has changed."""
        ...
