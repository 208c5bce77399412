"""A simulated instance: what it really takes and does, and what is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.registry.fleet.records import (
    Instance,
    InstanceState,
)


@dataclasses.dataclass(kw_only=True)
class SimulatedInstance:
    """One loaded model, as it really is."""

    instance_id: str
    model: str
    memory: dict[str, int]
    revision: int
    state: InstanceState
    device_ids: tuple[str, ...] = ()
    load_seconds: float = 0.0
    is_detached: bool = False
    active: set[int] = dataclasses.field(default_factory=set)
    last_used: float = 0.0
    on_idle: Callable[[], None] | None = None

    def report(self) -> Instance:
        """What its neuron tells the registry of it."""
        return Instance(
            self.instance_id,
            self.model,
            self.state,
            dict(self.memory),
            active_requests=len(self.active),
            config_revision=self.revision,
            last_used=self.last_used,
            load_seconds=self.load_seconds,
            device_ids=self.device_ids,
        )
