"""Places models: demands in, orders out. One writer, no I/O, no clock of its own.

`PlacementController` owns who waits for what. Whatever happens is told to it by its methods;
`advance` then lets time and news take effect. `Decider` decides about one demand and
`PlacementExecutor` carries the decision out.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.backplane.errors import FleetError
from services.backplane.security.principals import SYSTEM
from services.registry.catalogue.profile import Profile
from services.registry.control.cooldowns import Cooldowns
from services.registry.control.decide import Decider, ReservedDevices
from services.registry.control.ready import ReadyInstances
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, DemandKey, Ticket
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.progress import PlacementWaiter
from services.registry.placement.queue import PlacementQueue


class PlacementController:
    """Takes demands in, answers those that wait, and has the others decided on in their turn.

    The rules of the queue:

    1. All who want the same model share one demand, and so one load.
    2. Demands are looked at in turn: the urgent ones first, oldest first; then the others by age,
       or by residency class before age where the policy says `priority`.
    3. A demand is urgent once it has waited for `patience` seconds. For an urgent one busy
       instances are drained, and the devices that it waits for are reserved: younger demands do
       not get them. That bounds everybody's wait.
    4. A demand that nobody waits for any more ends, unless somebody asked that its load goes on;
       what becomes of a load under way is said by `Policy.abandoned_loads`.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        *,
        queue: PlacementQueue,
        decider: Decider,
        executor: PlacementExecutor,
        ready_instances: ReadyInstances,
        cooldowns: Cooldowns,
    ) -> None:
        self._fleet_state = fleet_state
        self._queue = queue
        self._decider = decider
        self._executor = executor
        self._ready_instances = ready_instances
        self._cooldowns = cooldowns

    # -- who wants what -----------------------------------------------------------------------

    @property
    def demands(self) -> list[Demand]:
        """What is waited for, the oldest first."""
        return self._queue.all()

    def problems(self) -> Mapping[str, FleetError]:
        """Why models failed to load or are missing, by model."""
        fleet_state = self._fleet_state
        found = dict(self._cooldowns.refusals(fleet_state.clock()))
        for model, error in self._decider.refused.items():
            profile = fleet_state.profile(model)
            if profile is None or not fleet_state.wanted_instances(profile):
                continue
            if not self._ready_instances.routable(profile):
                found.setdefault(model, error)
        return found

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
        principal: str = SYSTEM,
        detach: bool = False,
        keep_alive: float | None = None,
    ) -> Ticket:
        """Takes a caller in; it is answered by `advance` at the earliest.

        Raises:
            FleetError: QUEUE_FULL, or NO_ROOM where no other instance is allowed.
        """
        key = DemandKey(profile.model, neuron, self._replicas_for(profile, neuron, excluded))
        self._note_thrash(profile.model)
        demand, ticket = self._queue.join(
            key, profile, waiter, excluded=excluded, principal=principal
        )
        demand.is_detached |= detach
        demand.may_evict = True
        if keep_alive is not None:
            demand.keep_alive = keep_alive
        self._queue.look_again()
        return ticket

    def _note_thrash(self, model: str) -> None:
        """A model that was displaced is wanted again: it counts if the other still is, too."""
        fleet_state, now = self._fleet_state, self._fleet_state.clock()
        other = fleet_state.displacements.take_displacer(model)
        if other is not None and (
            self._queue.is_wanted(other) or self._ready_instances.is_in_use(other, now)
        ):
            fleet_state.displacements.count((model, other), now)
            self._ready_instances.forget(other)

    def want_instances(
        self, profile: Profile, replicas: int, *, neuron: str, may_evict: bool
    ) -> None:
        """Queues loads that no caller waits for: pins, minimum replicas, preloads, scaling."""
        key = DemandKey(profile.model, neuron, replicas)
        pause = self._cooldowns.refusal(profile.model, self._fleet_state.clock())
        if self._queue.get(key) is None and pause is None:
            demand = self._queue.open(key, profile)
            demand.is_detached = True
            demand.may_evict = may_evict
            self._queue.look_again()

    def leave(self, ticket: Ticket, *, gives_up: bool = False) -> None:
        """A caller no longer waits; the others of its demand notice nothing.

        Args:
            ticket: the caller's; one whose wait has ended already is ignored.
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
            self._queue.look_again()

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
        """Looks at all demands again: something changed that may change an answer."""
        self._queue.look_again()

    def refresh_profiles(self) -> None:
        """The catalogue has changed: demands go on with the new entries, or end."""
        for demand in self._queue.all():
            profile = self._fleet_state.profile(demand.profile.model)
            if profile is None:
                self._decider.fail(demand, errors.unknown_model(demand.profile.model))
            else:
                self._queue.refresh(demand, profile)
        self._queue.look_again()

    def advance(self) -> None:
        """Decides and orders what is due by now, or has become possible."""
        now = self._fleet_state.clock()
        if self._executor.advance(now):
            self._queue.look_again()
        for demand in self._queue.expire(now):
            self._let_go(demand)
        if self._queue.take_due(now):
            self._look_at_all(now)

    def next_due(self) -> float | None:
        """When `advance` has something to do even without news; None for never."""
        return self._queue.next_due(self._executor.next_due())

    def _look_at_all(self, now: float) -> None:
        reserved: ReservedDevices = {}
        position = 0
        for demand in self._queue.in_turn(now):
            if demand not in self._queue:
                continue  # it has just made way for another
            position += demand.job is None
            try:
                self._look_at(demand, position, reserved, now)
            except Exception as error:  # noqa: BLE001 - it is noted, and ends this demand alone
                self._decider.fail(demand, self._fleet_state.note_fault("demand", error))

    def _look_at(
        self, demand: Demand, position: int, reserved: ReservedDevices, now: float
    ) -> None:
        self._answer(demand, now)
        if self._is_over(demand):
            self._queue.close(demand)
        elif demand.job is None:
            self._decider.place(demand, position, reserved, now)
        elif self._executor.is_draining(demand.job):
            self._decider.reconsider(demand, demand.job, reserved, now)
        else:
            demand.retry_at = None

    # -- answering ----------------------------------------------------------------------------

    def _answer(self, demand: Demand, now: float) -> None:
        if not demand.tickets:
            return
        routable = self._ready_instances.routable(demand.profile, demand.key.neuron)
        if len(routable) < demand.key.replicas:
            return
        for ticket in list(demand.tickets):
            placed = self._ready_instances.choose(routable, ticket.excluded)
            if placed is None and len(routable) >= demand.profile.max_replicas:
                # it was excluded when it could not serve; now it can, and no other may exist
                placed = self._ready_instances.choose(routable, frozenset())
            if placed is None:
                continue
            self._ready_instances.hold(placed, now)
            self._queue.dismiss(demand, ticket, "placed")
            ticket.waiter.on_step(placed)

    def _is_over(self, demand: Demand) -> bool:
        if demand.tickets or demand.job is not None:
            return False
        if not demand.is_detached:
            return True
        routable = self._ready_instances.routable(demand.profile, demand.key.neuron)
        return len(routable) >= demand.key.replicas

    def _replicas_for(self, profile: Profile, neuron: str, excluded: frozenset[str]) -> int:
        """One will do; where the caller has tried all there are, one more is wanted."""
        routable = self._ready_instances.routable(profile, neuron)
        if not routable or self._ready_instances.choose(routable, excluded) is not None:
            return 1
        if len(routable) >= profile.max_replicas:
            raise errors.replicas_exhausted(profile.model, profile.max_replicas)
        return len(routable) + 1
