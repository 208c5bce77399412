"""The registry without its network: one object, one writer, no waiting.

Servicers and the simulator drive the same `ControlPlane`: membership and leases, the catalogue,
placement and reconciliation. Every method returns at once; `advance` lets time pass, and `next_due`
says until when nothing happens by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.backplane.errors import FleetError
from services.registry.catalogue import catalogue as catalogues
from services.registry.catalogue.catalogue import Catalogue, Difference
from services.registry.catalogue.profile import Profile
from services.registry.control import reconcile
from services.registry.control.membership import FleetMembership
from services.registry.control.placement_controller import PlacementController
from services.registry.fleet.leases import Leases
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, DemandKey, Ticket
from services.registry.placement.orders import Effects, UnloadReason
from services.registry.placement.progress import PlacementWaiter
from services.registry.scheduler import select
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import PlacementDecision

_CHORES_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """What placement would do with a model now, and why."""

    profile: Profile
    loaded_on: tuple[str, ...]
    decision: PlacementDecision
    required_bytes: int
    footprint_source: str


class ControlPlane:
    """Everything that is decided.

    Args:
        fleet_state: the state; this object is its only writer.
        effects: carries orders out.
        leases: how long a silent neuron is a member.
        expected: neurons that were in the fleet before this start; until they are back, or the
            settle time is over, models that are not loaded wait.
        on_change: called after any change that watchers want to hear of.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        effects: Effects,
        leases: Leases,
        *,
        expected: frozenset[str] = frozenset(),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.fleet_state = fleet_state
        self.cache = SchedulerCache(fleet_state)
        self._on_change = on_change
        now = fleet_state.clock()
        settles_at = now + fleet_state.policy.settle if expected else 0.0
        self.placements = PlacementController(
            fleet_state, self.cache, effects, settles_at=settles_at
        )
        self.membership = FleetMembership(
            fleet_state,
            self.cache,
            self.placements,
            leases,
            expected=expected,
            on_change=on_change,
        )
        self._preloaded: set[str] = set()
        self._chores_at = now

    # -- callers ------------------------------------------------------------------------------

    def ensure(
        self,
        name: str,
        waiter: PlacementWaiter,
        *,
        neuron: str = "",
        excluded: frozenset[str] = frozenset(),
        detach: bool = False,
        keep_alive: float | None = None,
        retry_failed: bool = False,
    ) -> Ticket:
        """Takes in a caller who wants a model.

        Args:
            name: a model or an alias.
            waiter: who is told; the answer may come before this returns.
            neuron: where it must be; empty for anywhere.
            excluded: instances that the caller found unable to serve.
            detach: the load goes on when the caller leaves.
            keep_alive: how long the model is kept when idle; None leaves it to policy.
            retry_failed: a person asks: no pause after an earlier failure.

        Raises:
            FleetError: MODEL_UNKNOWN, QUEUE_FULL, or NO_ROOM where no other copy is allowed.
        """
        profile = self.fleet_state.profile(name)
        if profile is None:
            raise errors.unknown_model(name)
        if keep_alive is not None:
            self._keep(profile, keep_alive)
        if retry_failed:
            self.placements.forget_failures(profile.model)
        ticket = self.placements.want(
            profile,
            waiter,
            neuron=neuron,
            excluded=excluded,
            detach=detach,
            keep_alive=keep_alive,
        )
        self.placements.advance()
        return ticket

    def _keep(self, profile: Profile, keep_alive: float) -> None:
        """Copies that are there are kept so long; those of a load under way take it from there."""
        for _, instance in self.fleet_state.fleet.instances_of(profile.model):
            record = self.fleet_state.activity.of(instance.instance_id)
            if record is not None:
                record.keep_alive = keep_alive

    def leave(self, ticket: Ticket, *, gives_up: bool = False) -> None:
        """A caller has gone. See `PlacementController.leave`."""
        self.placements.leave(ticket, gives_up=gives_up)
        self.placements.advance()

    def explain(self, name: str) -> Explanation:
        """What would happen to a request for a model now; changes nothing.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        profile = self.fleet_state.profile(name)
        if profile is None:
            raise errors.unknown_model(name)
        now = self.fleet_state.clock()
        key = DemandKey(profile.model)
        demand = next((d for d in self.placements.demands if d.key == key), None)
        request = self.placements.requests.request_for(demand or Demand(key, profile, now), {}, now)
        routable = self.placements.ready_instances.routable(profile)
        return Explanation(
            profile,
            tuple(member.name for member, _ in routable),
            select.explain(request, self.cache.index),
            request.footprint.total_bytes,
            request.footprint.source,
        )

    # -- operators ----------------------------------------------------------------------------

    def unload(
        self,
        neuron: str,
        instance: Instance,
        why: UnloadReason,
        *,
        drain_seconds: float | None = None,
        on_end: Callable[[FleetError | None], None] | None = None,
    ) -> None:
        """Drains and frees a copy, whatever protects it from eviction."""
        seconds = self.fleet_state.policy.drain_timeout if drain_seconds is None else drain_seconds
        self.placements.executor.unloads.order(
            neuron, instance, why, drain_seconds=seconds, on_end=on_end
        )
        self._on_change()

    def pin(self, model: str, neuron: str) -> None:
        """Keeps a model loaded."""
        self.fleet_state.pins[model] = neuron
        self._rules_changed()

    def unpin(self, model: str) -> None:
        """Ends an operator's pin."""
        self.fleet_state.pins.pop(model, None)
        self._rules_changed()

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Keeps placements off a neuron, or lets them on again."""
        self.membership.cordon(name, cordoned=cordoned)
        self.placements.advance()

    def use(self, catalogue: Catalogue) -> Difference:
        """Takes another catalogue; replicas of edited entries get no new work from now on."""
        changes = catalogues.difference(self.fleet_state.catalogue, catalogue)
        self.fleet_state.catalogue = catalogue
        self.placements.forget_failures()
        self.placements.refresh_profiles()
        self._preloaded -= set(changes.changed) | set(changes.removed)
        self._rules_changed()
        return changes

    def _rules_changed(self) -> None:
        self.cache.forget_all()
        self.membership.models_changed()
        self._chores_at = self.fleet_state.clock()
        self.placements.on_news()
        self.placements.advance()
        self._on_change()

    # -- ends of orders -----------------------------------------------------------------------

    def on_load_progress(self, order_id: int, progress: LoadProgress) -> None:
        """A load says how far it is."""
        self.placements.executor.on_load_progress(order_id, progress)

    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        """A load has ended well."""
        self.placements.executor.on_load_ready(order_id, instance)
        self.placements.advance()
        self._on_change()

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """A load has ended badly."""
        self.placements.executor.on_load_failed(order_id, error)
        self.placements.advance()

    def on_unloaded(self, order_id: int, freed_bytes: int) -> None:
        """A copy is gone."""
        self.placements.executor.unloads.on_unloaded(order_id, freed_bytes)
        self.placements.on_news()
        self.placements.advance()
        self._on_change()

    def on_unload_failed(self, order_id: int, error: FleetError) -> None:
        """A copy could not be unloaded."""
        self.placements.executor.unloads.on_unload_failed(order_id, error)
        self.placements.on_news()
        self.placements.advance()
        self._on_change()

    # -- time ---------------------------------------------------------------------------------

    def advance(self) -> None:
        """Lets time and news take effect."""
        now = self.fleet_state.clock()
        self.membership.lapse(now)
        if now >= self._chores_at:
            self._chores_at = now + _CHORES_SECONDS
            self._do_chores(now)
        self.placements.advance()

    def next_due(self) -> float:
        """When `advance` has something to do even if nobody says anything."""
        moments = (self._chores_at, self.membership.next_due(), self.placements.next_due())
        return min(m for m in moments if m is not None)

    def _do_chores(self, now: float) -> None:
        ready_instances = self.placements.ready_instances
        for removal in list(reconcile.to_remove(self.fleet_state, ready_instances, now)):
            self.placements.executor.unloads.order(
                removal.neuron,
                removal.instance,
                removal.why,
                drain_seconds=self.fleet_state.policy.drain_timeout,
                reason=removal.reason,
            )
        for want in list(reconcile.to_add(self.fleet_state, ready_instances, self._preloaded, now)):
            self.placements.want_instances(
                want.profile, want.replicas, neuron=want.neuron, may_evict=want.may_evict
            )
