"""What must hold at every step, whatever fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from bench.simulate.neuron import Neuron
from bench.simulate.world import Broken, Run
from services.backplane.security.principals import SYSTEM
from services.registry.fleet.records import InstanceState, NeuronIdentity, NeuronReport
from services.registry.placement.orders import LoadOrder, UnloadOrder, UnloadReason

_CHORES = frozenset(
    {UnloadReason.IDLE, UnloadReason.OUTDATED, UnloadReason.DEFRAG, UnloadReason.SURPLUS}
)
# The control acts when something is due; a waiter may be overdue by the length of one message.
_SLACK = 0.1
# Neurons tell whole microseconds of each principal's work.
_ROUNDING, _LEAST_ROUNDING = 0.0001, 0.01
# The bound of docs/limits.md, and from which length of a run on a share means something.
_MOST_UNTOLD = 0.02
_LONG = 24 * 3600.0


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
        self._askers: dict[str, set[str]] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._incarnations: dict[str, str] = {}
        self._returning: dict[str, Neuron] = {}
        self._settles_at = 0.0
        self._planned: dict[str, dict[str, Mapping[str, int]]] = {}

    def registry_restarted(self, returning: Iterable[Neuron]) -> None:
        """A new registry runs, and has been told that these neurons were there before."""
        self._waiting.clear()
        self._returning = {n.name: n for n in returning}
        self._settles_at = self._run.world.now + self._run.fleet_state.policy.settle

    def asks(self, model: str, principal: str) -> None:
        """Somebody wants a model that he cannot be sent to."""
        self._askers.setdefault(model, {SYSTEM}).add(principal)

    def charged(self, charged: float, busy: float, untold: float) -> None:
        """All that devices did is somebody's, once; but for what the killed had not told.

        Args:
            charged: seconds of all principals.
            busy: seconds that devices have worked.
            untold: of these, what was told to nobody who wrote it down when a neuron was killed.
        """
        if abs(busy - untold - charged) > busy * _ROUNDING + _LEAST_ROUNDING:
            self._fail(
                f"{charged:.3f} s are charged, and devices have worked for {busy:.3f} s, of which"
                f" {untold:.3f} s were not told when their neurons were killed"
            )
        if self._run.scenario.seconds >= _LONG and untold > busy * _MOST_UNTOLD:
            self._fail(f"{untold:.3f} s of {busy:.3f} s of devices were never told")

    def load_ordered(self, order: LoadOrder) -> None:
        """No load of what a returning neuron holds, before the settling time is over.

        And whoever is charged for it has asked for it.
        """
        if order.principal not in self._askers.get(order.profile.model, {SYSTEM}):
            self._fail(f"{order.principal} is charged for {order.profile.model}, and never asked")
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
        """No device is over-committed, nor the host's memory, by what the registry has planned.

        Of a load that goes on this is what was planned for it: that it takes more nobody knows yet.
        And no model is loaded beside one that it is kept apart from.
        """
        self._is_apart(order, neuron)
        planned = self._planned.setdefault(neuron.name, {})
        for device, need in order.needs.items():
            held = sum(
                (
                    planned[each.model]
                    if each.state is InstanceState.LOADING and each.model in planned
                    else each.memory
                ).get(device, 0)
                for each in neuron.instances.values()
            )
            if held + need > neuron.devices[device]:
                self._fail(
                    f"{neuron.name}/{device} is over-committed by {order.profile.model}: "
                    f"{held} held, {need} more, {neuron.devices[device]} in all"
                )
        planned[order.profile.model] = order.needs

    def _is_apart(self, order: LoadOrder, neuron: Neuron) -> None:
        """No two of an exclusive group are on one device, no two kept apart on one neuron."""
        profile = order.profile
        for instance in neuron.instances.values():
            if instance.model in profile.apart_from:
                self._fail(f"{profile.model} and {instance.model} are both on {neuron.name}")
            shared = instance.computed_on.intersection(order.device_ids)
            if instance.model in profile.exclusive_with and shared:
                self._fail(
                    f"{profile.model} and {instance.model} of the exclusive group "
                    f"{profile.exclusive_group} are both on {neuron.name}/{min(shared)}"
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
