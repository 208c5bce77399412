"""A simulated instance: what it really takes and does, and what is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from bench.simulate.device_time import Work
from services.registry.fleet.records import CPU, Instance, InstanceState


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
    loaded_for: str = ""
    unloaded_for: str = ""
    is_detached: bool = False
    layers_left: int = 0
    work: Work
    active: dict[int, str] = dataclasses.field(default_factory=dict[int, str])
    """The requests that run, and whose they are."""
    last_used: float = 0.0
    on_idle: Callable[[], None] | None = None

    @property
    def computed_on(self) -> frozenset[str]:
        """The devices that compute it: the host among GPUs only where it has layers."""
        device_ids = set(self.device_ids)
        if self.layers_left:
            device_ids.add(CPU)
        elif len(device_ids) > 1 and self.state is not InstanceState.LOADING:
            device_ids.discard(CPU)
        return frozenset(device_ids)

    def measure(self, now: float) -> None:
        """Charges what it has done until now."""
        if self.state is InstanceState.LOADING:
            self.work.loaded_for(self.loaded_for, now)
        elif self.state is InstanceState.UNLOADING:
            self.work.unloaded_for(self.unloaded_for, now)
        else:
            self.work.answered_for(list(self.active.values()), now)

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
            layers_left=self.layers_left,
        )
