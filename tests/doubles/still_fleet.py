"""A `ControlPlane` with a hand-driven clock and effects that only take orders down."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import FleetError
from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.leases import Leases
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import (
    Device,
    Instance,
    InstanceState,
    NeuronIdentity,
    NeuronReport,
)
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import Event, LoadOrder, UnloadOrder, UpdateOrder
from services.registry.placement.progress import Placed, Queued, Step

SIZE = 10


def profile(name: str, **facts: object) -> Profile:
    made = Profile(name, LoadTerms(source=f"path:/{name}"), 1, memory_bytes=SIZE)
    return dataclasses.replace(made, **facts)  # type: ignore[arg-type]


@dataclasses.dataclass(eq=False)
class Caller:
    """Somebody who waits."""

    steps: list[Step] = dataclasses.field(default_factory=list)
    error: FleetError | None = None

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def on_failed(self, error: FleetError) -> None:
        self.error = error

    @property
    def placed(self) -> Placed | None:
        return self.steps[-1] if self.steps and isinstance(self.steps[-1], Placed) else None

    @property
    def reason(self) -> str:
        last = self.steps[-1]
        assert isinstance(last, Queued)
        return last.reason


class StillFleet:
    """One neuron per capacity given; loads and unloads end when the test says so.

    Args:
        expected: neurons that the registry, just started, waits for; None: it runs for long.
        away: neurons that attach when the test says so.
    """

    def __init__(
        self,
        *profiles: Profile,
        capacities: tuple[int, ...] = (SIZE,),
        policy: Policy | None = None,
        expected: frozenset[str] | None = None,
        away: tuple[str, ...] = (),
    ) -> None:
        self.now = 1000.0
        self.loads: list[LoadOrder] = []
        self.unloads: list[UnloadOrder] = []
        self.updates: list[UpdateOrder] = []
        self.cancelled: list[int] = []
        self.events: list[Event] = []
        models = {p.model: p for p in profiles}
        self.fleet_state = FleetState(
            lambda: self.now,
            policy or Policy(minimum_residency=4.0, patience=10.0, handover=1.0, max_wait=60.0),
            catalogue=Catalogue(models, {}, 1),
        )
        self.control = ControlPlane(
            self.fleet_state,
            self,
            Leases(lease_seconds=1e9, forget_seconds=1e9),
            expected=expected,
        )
        self.capacities = {f"n{i}": c for i, c in enumerate(capacities)}
        self.held: dict[str, dict[str, Instance]] = {n: {} for n in self.capacities}
        self.epochs: dict[str, int] = {}
        self._sequence = 0
        for name in self.capacities:
            if name not in away:
                self.attach(name)

    # -- effects ------------------------------------------------------------------------------

    def load(self, order: LoadOrder) -> None:
        self.loads.append(order)

    def cancel_load(self, order_id: int) -> None:
        self.cancelled.append(order_id)

    def unload(self, order: UnloadOrder) -> None:
        self.unloads.append(order)

    def update(self, order: UpdateOrder) -> None:
        self.updates.append(order)

    def record(self, event: Event) -> None:
        self.events.append(event)

    # -- what tests do ------------------------------------------------------------------------

    def ask(self, model: str, **more: object) -> Caller:
        caller = Caller()
        self.control.ensure(model, caller, **more)  # type: ignore[arg-type]
        return caller

    def attach(self, name: str) -> None:
        """A neuron comes, with what it holds."""
        self.epochs[name] = self.control.membership.attach(NeuronIdentity(name, "i", f"{name}:1"))
        self.report(name)

    def report(self, name: str) -> None:
        self._sequence += 1
        held = self.held[name]
        used = sum(sum(i.memory.values()) for i in held.values())
        capacity = self.capacities[name]
        report = NeuronReport(
            self._sequence,
            devices=(Device("gpu", "cuda", capacity, max(0, capacity - used)),),
            instances=tuple(held.values()),
        )
        self.control.membership.report(name, self.epochs[name], report)
        self.control.advance()

    def finish_load(self, size: int = SIZE) -> None:
        """The last load ends well."""
        order = self.loads[-1]
        instance = Instance(
            f"{order.profile.model}#{order.order_id}",
            order.profile.model,
            InstanceState.READY,
            {"gpu": size},
            config_revision=order.profile.revision,
        )
        self.held[order.neuron][instance.instance_id] = instance
        self.control.on_load_ready(order.order_id, instance)
        self.report(order.neuron)

    def fail_load(self, error: FleetError) -> None:
        self.control.on_load_failed(self.loads[-1].order_id, error)

    def finish_unload(self) -> None:
        order = self.unloads[-1]
        del self.held[order.neuron][order.instance_id]
        self.control.on_unloaded(order.order_id, SIZE)
        self.report(order.neuron)

    def work(self, model: str, active: int) -> None:
        for name, held in self.held.items():
            for key, instance in list(held.items()):
                if instance.model == model:
                    held[key] = dataclasses.replace(instance, active_requests=active)
                    self.report(name)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.control.advance()

    def serve(self, model: str) -> Caller:
        """Has a model loaded from nothing."""
        caller = self.ask(model)
        self.finish_load()
        return caller
