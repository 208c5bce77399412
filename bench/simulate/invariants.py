"""What must hold at every step, whatever fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from bench.simulate.neuron import Neuron
from bench.simulate.world import Broken, Run
from services.registry.fleet.records import InstanceState, NeuronIdentity, NeuronReport
from services.registry.placement.orders import LoadOrder, UnloadOrder, UnloadReason

_CHORES = frozenset(
    {UnloadReason.IDLE, UnloadReason.OUTDATED, UnloadReason.DEFRAG, UnloadReason.SURPLUS}
)
# The control acts when something is due; a waiter may be overdue by the length of one message.
_SLACK = 0.1


class Waiting(Protocol):
    """A client that waits for a placement."""

    @property
    def model(self) -> str:
        """The model that it wants."""
        ...

    @property
    def waiting_since(self) -> float | None:
        """When it began to wait; None once it no longer does."""
        ...


class Invariants:
    """Told of everything that matters; raises `Broken` at the first breach."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: dict[Waiting, float] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._incarnations: dict[str, str] = {}
        self._returning: dict[str, Neuron] = {}
        self._settles_at = 0.0

    def registry_restarted(self, returning: Iterable[Neuron]) -> None:
        """A new registry runs, and has been told that these neurons were there before."""
        self._waiting.clear()
        self._returning = {n.name: n for n in returning}
        self._settles_at = self._run.world.now + self._run.fleet_state.policy.settle

    def load_ordered(self, order: LoadOrder) -> None:
        """No load of what a returning neuron holds, before the settling time is over."""
        if self._run.world.now >= self._settles_at:
            return
        for neuron in self._returning.values():
            if order.profile.model in {i.model for i in neuron.instances.values()}:
                self._fail(
                    f"{order.profile.model} is loaded on {order.neuron} although {neuron.name}, "
                    "which the registry waits for after its restart, holds it"
                )

    def attached(self, neuron: Neuron) -> None:
        """A neuron attached: the fleet has this process of it and no other."""
        self._incarnations[neuron.name] = str(neuron.incarnation)

    def reported(
        self, identity: NeuronIdentity, epoch: int, report: NeuronReport, *, taken: bool
    ) -> None:
        """A report arrived: one that is old changes nothing."""
        key = (identity.name, identity.incarnation_id)
        member = self._run.fleet_state.fleet.members.get(identity.name)
        if taken:
            self._returning.pop(identity.name, None)
        if taken and member is not None:
            if member.identity.incarnation_id != self._incarnations[identity.name]:
                self._fail(f"a dead process of {identity.name} has clobbered the live one")
            if report.sequence < self._newest.get(key, 0):
                self._fail(f"an old report of {identity.name} has replaced a newer one")
            self._newest[key] = report.sequence

    def load_begins(self, order: LoadOrder, neuron: Neuron) -> None:
        """No device is over-committed, by the registry's own figure of the model."""
        footprint = self._run.fleet_state.footprint(order.profile)
        need = footprint.per_device(len(order.device_ids))
        for device in order.device_ids:
            held = sum(c.memory.get(device, 0) for c in neuron.instances.values())
            if held + need > neuron.devices[device]:
                self._fail(
                    f"{neuron.name}/{device} is over-committed by {order.profile.model}: "
                    f"{held} held, {need} more, {neuron.devices[device]} in all"
                )

    def unload_ordered(self, order: UnloadOrder) -> None:
        """Nothing in flight is evicted, pins are kept, protection and classes are respected."""
        fleet_state = self._run.fleet_state
        member = fleet_state.fleet.members[order.neuron]
        instance = member.instance(order.instance_id)
        profile = fleet_state.catalogue.profiles[order.model]
        now = self._run.world.now
        if order.why in _CHORES and instance is not None and instance.in_flight:
            self._fail(f"{order.model} has work in flight and is unloaded as {order.why.value}")
        if order.why is not UnloadReason.EVICTED:
            return
        if instance is None or instance.state is InstanceState.FAILED:
            return
        incoming = fleet_state.catalogue.profiles[order.for_model]
        if profile.pinned:
            self._fail(f"{order.model} is pinned and is evicted for {order.for_model}")
        if profile.residency_class > incoming.residency_class:
            self._fail(f"{order.model} is of a higher class than {order.for_model}")
        if instance.in_flight:
            ages = [
                now - d.since
                for d in self._run.control.placements.demands
                if d.profile.model == order.for_model
            ]
            if max(ages, default=0.0) < fleet_state.policy.patience:
                self._fail(
                    f"{order.model} has {instance.in_flight} requests in flight and is evicted for "
                    f"{order.for_model}, which has not waited long enough for that"
                )
        protected = fleet_state.protected_until(instance)
        if protected > now + _SLACK:
            self._fail(f"{order.model} is evicted {protected - now:.1f} s too early")

    def waits(self, request: Waiting) -> None:
        """A client has begun to wait."""
        profile = self._run.fleet_state.catalogue.profiles[request.model]
        wait = profile.max_wait_seconds or self._run.fleet_state.policy.max_wait
        self._waiting[request] = self._run.world.now + wait

    def after_advance(self) -> None:
        """No waiter waits beyond its bound."""
        now = self._run.world.now
        for request in [r for r, _ in self._waiting.items() if r.waiting_since is None]:
            del self._waiting[request]
        first = next(iter(self._waiting.items()), None)
        if first is not None and first[1] + _SLACK < now:
            self._fail(f"a client has waited too long for {first[0].model}")

    def at_the_end(self, *, is_over: bool, left: list[str], outcomes: Mapping[int, str]) -> None:
        """Every request was answered or refused with a reason, and nothing is left behind.

        Args:
            is_over: every request has ended.
            left: models of the requests that have not.
            outcomes: how each of the others ended, by its number.
        """
        if not is_over:
            self._fail(f"requests without an end: {sorted(left)}")
        control = self._run.control
        if control.placements.waiting:
            self._fail(f"{control.placements.waiting} waiters are still counted")
        tried = [o for o in outcomes.values() if o == "tried too often"]
        if len(tried) > len(outcomes) // 20:
            self._fail(f"{len(tried)} requests were sent to instances that refused them")

    def _fail(self, what: str) -> None:
        raise Broken(f"at {self._run.world.now:.3f} s: {what}")
