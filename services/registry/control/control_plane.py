"""The registry without its network: one object, one writer, no waiting.

Servicers and the simulator drive the same `ControlPlane`: membership and leases, the catalogue,
placement and reconciliation. Every method returns at once; `advance` lets time pass, and `next_due`
says until when nothing happens by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError
from services.backplane.security.principals import SYSTEM
from services.registry.catalogue.catalogue import Catalogue, Difference, difference
from services.registry.control.chores import Chores
from services.registry.control.cooldowns import Cooldowns
from services.registry.control.decide import Decider
from services.registry.control.explanation import Explainer, Explanation
from services.registry.control.job_results import JobResults
from services.registry.control.membership import FleetMembership
from services.registry.control.placement_controller import PlacementController
from services.registry.control.ready import ReadyInstances
from services.registry.control.reconcile import Reconciler
from services.registry.control.request_builder import RequestBuilder
from services.registry.control.returning import Settling
from services.registry.fleet.leases import Leases
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Ticket
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.orders import Effects, OrderListener, UnloadReason
from services.registry.placement.progress import PlacementWaiter
from services.registry.placement.queue import PlacementQueue
from services.registry.scheduler.cache import SchedulerCache

# Seconds between two looks at what the fleet needs without anybody waiting for it.
_RECONCILE_SECONDS: Final = 1.0


class ControlPlane(OrderListener):
    """Hears everything that is said to the registry, and decides: the one writer of its state.

    Args:
        fleet_state: the state; this object is its only writer.
        effects: carries orders out; it tells this object how they end.
        leases: how long a silent neuron is a member.
        expected: neurons that a start waits for before anything is placed; see `Settling`.
        on_change: called after any change that watchers want to hear of.

    Attributes:
        cache: every neuron as the scheduler sees it.
        placements: who waits for which model.
        membership: takes in what neurons say.
        executor: the loads and unloads under way.
        requests: makes the scheduler's questions.
        is_settling: it has just started, and neurons that were there before are not back.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        effects: Effects,
        leases: Leases,
        *,
        expected: frozenset[str] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        now = fleet_state.clock()
        self._settling = Settling(expected, now + fleet_state.policy.settle)
        self.is_settling = not self._settling.is_over(now)
        cache, cooldowns = SchedulerCache(fleet_state), Cooldowns()
        queue = PlacementQueue(fleet_state, effects)
        executor = PlacementExecutor(
            fleet_state, cache, effects, JobResults(fleet_state, queue, cooldowns)
        )
        requests = RequestBuilder(fleet_state, cache, executor)
        ready_instances = ReadyInstances(fleet_state, cache)
        self.fleet_state = fleet_state
        self.cache = cache
        self.executor = executor
        self.requests = requests
        self.placements = PlacementController(
            fleet_state,
            queue=queue,
            decider=Decider(
                fleet_state,
                cache,
                queue=queue,
                executor=executor,
                requests=requests,
                cooldowns=cooldowns,
                effects=effects,
                settling=self._settling,
            ),
            executor=executor,
            ready_instances=ready_instances,
            cooldowns=cooldowns,
        )
        self.membership = FleetMembership(
            fleet_state,
            cache,
            self.placements,
            executor=executor,
            leases=leases,
            settling=self._settling,
            effects=effects,
            on_change=on_change,
        )
        self._explainer = Explainer(
            fleet_state, cache, queue=queue, requests=requests, ready_instances=ready_instances
        )
        self._reconciler = Reconciler(fleet_state, ready_instances)
        self._chores = Chores(fleet_state, self._reconciler, executor, self.placements)
        self._reconcile_at = now
        self._on_change = on_change

    def ensure(
        self,
        name: str,
        waiter: PlacementWaiter,
        *,
        neuron: str = "",
        excluded: frozenset[str] = frozenset(),
        principal: str = SYSTEM,
        detach: bool = False,
        keep_alive: float | None = None,
        retry_failed: bool = False,
    ) -> Ticket:
        """Takes in a caller who wants a model.

        Args:
            name: a model or an alias.
            waiter: who is told; the answer may come before this returns.
            neuron: where it must be; empty for anywhere.
            excluded: ids of instances that the caller found unable to serve.
            principal: who is charged for what it takes.
            detach: the load goes on when the caller leaves.
            keep_alive: seconds that the model is kept when idle; None leaves it to policy.
            retry_failed: a person asks: no pause after an earlier failure.

        Raises:
            FleetError: MODEL_UNKNOWN, QUEUE_FULL, or NO_ROOM where no other instance is allowed.
        """
        profile = self.fleet_state.profile(name)
        if profile is None:
            raise errors.unknown_model(name)
        if keep_alive is not None:
            self.fleet_state.keep_alive(profile.model, keep_alive)
        if retry_failed:
            self.placements.forget_failures(profile.model)
        ticket = self.placements.want(
            profile,
            waiter,
            neuron=neuron,
            excluded=excluded,
            principal=principal,
            detach=detach,
            keep_alive=keep_alive,
        )
        self._finish()
        return ticket

    def leave(self, ticket: Ticket, *, gives_up: bool = False) -> None:
        """A caller no longer waits; the others that want its model notice nothing.

        Args:
            ticket: the caller's; one whose wait has ended already is ignored.
            gives_up: a load that nobody else waits for ends now, whatever the policy is.
        """
        self.placements.leave(ticket, gives_up=gives_up)
        self._finish()

    def explain(self, name: str) -> Explanation:
        """What would happen to a request for a model now; changes nothing.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        return self._explainer.explain(name)

    def unload(
        self,
        neuron: str,
        instance: Instance,
        why: UnloadReason,
        *,
        drain_seconds: float | None = None,
        on_end: Callable[[FleetError | None], None] | None = None,
    ) -> None:
        """Drains and frees an instance, whatever protects it from eviction.

        Args:
            neuron: where it is.
            instance: what goes.
            why: for metrics and the log.
            drain_seconds: how long running requests may take; None leaves it to policy.
            on_end: called once, with the error or None.
        """
        seconds = self.fleet_state.policy.drain_timeout if drain_seconds is None else drain_seconds
        self.executor.unloads.order(neuron, instance, why, drain_seconds=seconds, on_end=on_end)
        self._finish(is_change=True)

    def pin(self, model: str, neuron: str) -> None:
        """Keeps a model loaded, on one neuron or (empty) on any."""
        self.fleet_state.pins[model] = neuron
        self._rules_changed()

    def unpin(self, model: str) -> None:
        """Ends an operator's pin."""
        for name in self.fleet_state.pins_of(model):
            del self.fleet_state.pins[name]
        self._rules_changed()

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Keeps placements off a neuron, or lets them on again."""
        self.membership.cordon(name, cordoned=cordoned)
        self._finish()

    def use(self, catalogue: Catalogue) -> Difference:
        """Takes another catalogue; instances of edited entries get no new work from now on."""
        changes = difference(self.fleet_state.catalogue, catalogue)
        self.fleet_state.catalogue = catalogue
        self.placements.forget_failures()
        self.placements.refresh_profiles()
        self._reconciler.preload_again({*changes.changed, *changes.removed})
        self._rules_changed()
        return changes

    def _rules_changed(self) -> None:
        self.cache.forget_all()
        self.membership.models_changed()
        self._reconcile_at = self.fleet_state.clock()
        self._finish(is_news=True, is_change=True)

    @override
    def on_load_progress(self, order_id: int, progress: LoadProgress) -> None:
        self.executor.on_load_progress(order_id, progress)

    @override
    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        self.executor.on_load_ready(order_id, instance)
        self._finish(is_change=True)

    @override
    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        self.executor.on_load_failed(order_id, error)
        self._finish()

    @override
    def on_unloaded(self, order_id: int, freed_bytes: int) -> None:
        self.executor.unloads.on_unloaded(order_id, freed_bytes)
        self._finish(is_news=True, is_change=True)

    @override
    def on_unload_failed(self, order_id: int, error: FleetError) -> None:
        self.executor.unloads.on_unload_failed(order_id, error)
        self._finish(is_news=True, is_change=True)

    def advance(self) -> None:
        """Does what is due by now, and what news since the last call asks for."""
        now = self.fleet_state.clock()
        self.membership.lapse(now)
        self._settle(now)
        if now >= self._reconcile_at:
            self._reconcile_at = now + _RECONCILE_SECONDS
            self._chores.run(now)
        self._finish()

    def next_due(self) -> float:
        """When `advance` has something to do even if nobody says anything; monotonic seconds."""
        settled_at = self._settling.ends_at if self.is_settling else None
        lapse, look = self.membership.next_due(), self.placements.next_due()
        moments = (self._reconcile_at, settled_at, lapse, look)
        return min(m for m in moments if m is not None)

    def _settle(self, now: float) -> None:
        if self.is_settling and self._settling.is_over(now):
            self.is_settling = False
            self.membership.models_changed()
            self._on_change()

    def _finish(self, *, is_news: bool = False, is_change: bool = False) -> None:
        """Ends every verb: placement goes on, and whoever watches is told.

        Args:
            is_news: it may change what demands wait for, and placement has not seen it yet.
            is_change: watchers want to hear of it.
        """
        if is_news:
            self.placements.on_news()
        self.placements.advance()
        if is_change:
            self._on_change()
