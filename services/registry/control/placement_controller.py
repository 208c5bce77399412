"""Places models: demands in, orders out. One writer, no I/O, no clock of its own.

`PlacementController` owns who waits for what. Whatever happens is told to it by its methods;
`advance` then lets time and news take effect: waiters are answered, and demands are decided on, the
longest-waiting first. `Decider` acts on one demand, `PlacementExecutor` carries a decision through.

The rules of turn are those of docs/placement.md: one demand per model, so that all who want a
model share one load; after `patience` a demand is urgent: busy copies are drained for it, and the
devices it waits for are kept from younger demands. That is what bounds everybody's wait.
"""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.registry.catalogue.profile import Profile
from services.registry.control.cooldowns import Cooldowns
from services.registry.control.decide import Decider, Held
from services.registry.control.ready import ReadyInstances
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, DemandKey, Ticket
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.orders import Effects
from services.registry.placement.progress import PlacementWaiter
from services.registry.placement.queue import PlacementQueue
from services.registry.scheduler.cache import SchedulerCache


class PlacementController:
    """All demands, in the order in which they came."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        effects: Effects,
        *,
        settles_at: float,
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._queue = PlacementQueue(fleet_state, effects)
        self._cooldowns = Cooldowns()
        self._news = True
        self.ready_instances = ReadyInstances(fleet_state, cache)
        self.executor = PlacementExecutor(
            fleet_state,
            cache,
            effects,
            on_ready=self._job_ready,
            on_failed=self._job_failed,
            on_overturned=self._job_overturned,
        )
        self._decider = Decider(
            fleet_state,
            cache,
            self._queue,
            self.executor,
            self._cooldowns,
            effects,
            settles_at=settles_at,
        )
        self.requests = self._decider.requests

    # -- who wants what -----------------------------------------------------------------------

    @property
    def demands(self) -> list[Demand]:
        """All of them, oldest first."""
        return self._queue.all()

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return self._queue.waiting

    def want(
        self,
        profile: Profile,
        waiter: PlacementWaiter,
        *,
        neuron: str = "",
        excluded: frozenset[str] = frozenset(),
        detach: bool = False,
        keep_alive: float | None = None,
    ) -> Ticket:
        """Takes a caller in; it is answered by `advance` at the earliest.

        Raises:
            FleetError: too many wait already, or no other copy is allowed.
        """
        key = DemandKey(profile.model, neuron, self._replicas_for(profile, neuron, excluded))
        demand, ticket = self._queue.join(key, profile, waiter, excluded)
        demand.is_detached |= detach
        demand.may_evict = True
        if keep_alive is not None:
            demand.keep_alive = keep_alive
        self._news = True
        return ticket

    def want_instances(
        self, profile: Profile, replicas: int, *, neuron: str, may_evict: bool
    ) -> None:
        """Wants copies that nobody waits for: pins, minimum of replicas, preloads, scaling."""
        key = DemandKey(profile.model, neuron, replicas)
        pause = self._cooldowns.refusal(profile.model, self._fleet_state.clock())
        if self._queue.get(key) is None and pause is None:
            demand = self._queue.open(key, profile)
            demand.is_detached = True
            demand.may_evict = may_evict
            self._news = True

    def leave(self, ticket: Ticket, *, gives_up: bool = False) -> None:
        """A caller has gone; the others notice nothing.

        Args:
            ticket: the caller's.
            gives_up: a load that nobody else waits for ends now, whatever the policy is.
        """
        demand = self._queue.get(ticket.key)
        if demand is None or ticket not in demand.tickets:
            return
        self._queue.dismiss(demand, ticket, "left")
        self._let_go(demand, gives_up=gives_up)

    def _let_go(self, demand: Demand, *, gives_up: bool = False) -> None:
        """Ends a demand that nobody waits for any more, unless policy carries its load through."""
        if not demand.is_abandoned:
            return
        if demand.job is None or gives_up or self._fleet_state.policy.abandoned_loads == "drop":
            self._decider.drop(demand)
            self._news = True

    def forget_failures(self, model: str = "") -> None:
        """Lets a model that failed to load be tried again at once; empty for all."""
        if model:
            self._cooldowns.end(model)
        else:
            self._cooldowns.end_all()

    def fail_all(self, error: FleetError) -> None:
        """Ends every wait: this registry stops or no longer leads."""
        for demand in self._queue.all():
            self._decider.fail(demand, error)

    # -- time and news ------------------------------------------------------------------------

    def on_news(self) -> None:
        """Something changed that may change an answer."""
        self._news = True

    def settled(self) -> None:
        """All neurons that were in the fleet before are back."""
        self._decider.settled()
        self._news = True

    def refresh_profiles(self) -> None:
        """The catalogue has changed: demands go on with the new entries, or end."""
        for demand in self._queue.all():
            profile = self._fleet_state.profile(demand.profile.model)
            if profile is None:
                self._decider.fail(demand, errors.unknown_model(demand.profile.model))
            else:
                self._queue.refresh(demand, profile)
        self._news = True

    def advance(self) -> None:
        """Lets time and news take effect."""
        now = self._fleet_state.clock()
        if self.executor.advance(now):
            self._news = True
        for demand in self._queue.expire(now):
            self._let_go(demand)
        if self._news or self._queue.is_due(now):
            self._news = False
            self._pass(now)

    def next_due(self) -> float | None:
        """When `advance` has something to do even without news; None for never."""
        return self._queue.next_due(self.executor.next_due())

    def _pass(self, now: float) -> None:
        held: Held = {}
        position = 0
        for demand in self._queue.in_turn(now):
            if demand not in self._queue:
                continue  # it has just made way for another
            self._answer(demand, now)
            if self._is_over(demand):
                self._queue.close(demand)
            elif demand.job is None:
                position += 1
                self._decider.place(demand, position, held, now)
            elif self.executor.is_draining(demand.job):
                self._decider.reconsider(demand, demand.job, held, now)
            else:
                demand.retry_at = None

    # -- answering ----------------------------------------------------------------------------

    def _answer(self, demand: Demand, now: float) -> None:
        if not demand.tickets:
            return
        routable = self.ready_instances.routable(demand.profile, demand.key.neuron)
        if len(routable) < demand.key.replicas:
            return
        for ticket in list(demand.tickets):
            placed = self.ready_instances.choose(routable, ticket.excluded)
            if placed is None and len(routable) >= demand.profile.max_replicas:
                # it was excluded when it could not serve; now it can, and no other may exist
                placed = self.ready_instances.choose(routable, frozenset())
            if placed is None:
                continue
            self._fleet_state.activity.hold(
                placed.instance_id, now, now + self._fleet_state.policy.handover
            )
            self._cache.forget(placed.neuron)
            self._queue.dismiss(demand, ticket, "placed")
            ticket.waiter.on_step(placed)

    def _is_over(self, demand: Demand) -> bool:
        if demand.tickets or demand.job is not None:
            return False
        if not demand.is_detached:
            return True
        return (
            len(self.ready_instances.routable(demand.profile, demand.key.neuron))
            >= demand.key.replicas
        )

    # -- ends of jobs -------------------------------------------------------------------------

    def _job_ready(self, key: DemandKey) -> None:
        demand = self._queue.get(key)
        self._cooldowns.end(key.model)
        self._news = True
        if demand is not None:
            demand.job = None

    def _job_failed(self, key: DemandKey, neuron: str, error: FleetError) -> None:
        """Once more, elsewhere if possible; then everybody who waits is told."""
        self._news = True
        demand = self._queue.get(key)
        if demand is None:
            return
        demand.job, demand.last_error = None, error
        demand.avoided[neuron] = f"it has just failed: {error.message}"
        lost = error.reason in {Reason.NEURON_LOST, Reason.WORKER_LOST, Reason.SHUTTING_DOWN}
        demand.losses += lost
        demand.failures += not lost
        final = error.reason.row.retry.value == "never"
        if final or demand.failures > 1 or demand.losses > 2:  # noqa: PLR2004 - thrice
            self._cooldowns.begin(key.model, error, self._fleet_state.clock())
            self._decider.fail(demand, error)

    def _job_overturned(self, key: DemandKey) -> None:
        """Fresh figures overturned the plan; nothing has failed, and another is made."""
        self._news = True
        demand = self._queue.get(key)
        if demand is not None:
            demand.job = None
            demand.replans += 1

    # -- inside -------------------------------------------------------------------------------

    def _replicas_for(self, profile: Profile, neuron: str, excluded: frozenset[str]) -> int:
        """One copy will do; where the caller has tried all there are, one more is wanted."""
        routable = self.ready_instances.routable(profile, neuron)
        if not routable or self.ready_instances.choose(routable, excluded) is not None:
            return 1
        if len(routable) >= profile.max_replicas:
            raise errors.replicas_exhausted(profile.model, profile.max_replicas)
        return len(routable) + 1
