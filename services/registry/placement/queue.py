"""Who waits for which model, since when, and whose turn it is."""

from __future__ import annotations

from services.backplane.errors import FleetError
from services.registry.catalogue.profile import Profile
from services.registry.fleet.policy import Strategy
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, DemandKey, Ticket
from services.registry.placement.orders import Effects, WaitEnded
from services.registry.placement.progress import PlacementWaiter, Queued


class PlacementQueue:
    """All demands, oldest first: one for each model, neuron and number of instances.

    Attributes:
        waiting: how many callers wait.
    """

    def __init__(self, fleet_state: FleetState, effects: Effects) -> None:
        self._fleet_state = fleet_state
        self._effects = effects
        self._by_key: dict[DemandKey, Demand] = {}
        self._is_news = True
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def all(self) -> list[Demand]:
        """All demands, oldest first; the list is the caller's own."""
        return list(self._by_key.values())

    def get(self, key: DemandKey) -> Demand | None:
        """The demand of a key, or None."""
        return self._by_key.get(key)

    def is_wanted(self, model: str) -> bool:
        """True if any caller waits for a model."""
        return any(d.tickets for d in self._by_key.values() if d.key.model == model)

    def __contains__(self, demand: Demand) -> bool:
        return self._by_key.get(demand.key) is demand

    # -- coming and going ---------------------------------------------------------------------

    def join(
        self,
        key: DemandKey,
        profile: Profile,
        waiter: PlacementWaiter,
        *,
        excluded: frozenset[str],
        principal: str,
    ) -> tuple[Demand, Ticket]:
        """Takes a caller in, and tells it the newest step that the others were told.

        Raises:
            FleetError: QUEUE_FULL: as many wait as may.
        """
        policy, now = self._fleet_state.policy, self._fleet_state.clock()
        if self.waiting >= policy.max_waiters:
            raise errors.too_many_waiters(policy.max_waiters)
        demand = self.open(key, profile)
        until = now + self._longest_wait(profile)
        ticket = Ticket(key, waiter, excluded, principal, since=now, deadline=until)
        demand.tickets[ticket] = None
        self.waiting += 1
        if demand.step is not None:
            waiter.on_step(demand.step)
        return demand, ticket

    def open(self, key: DemandKey, profile: Profile) -> Demand:
        """The demand of a key, made where there is none."""
        demand = self._by_key.get(key)
        if demand is None:
            demand = self._by_key[key] = Demand(key, profile, self._fleet_state.clock())
        return demand

    def dismiss(self, demand: Demand, ticket: Ticket, outcome: str) -> None:
        """Ends one caller's wait; `outcome` is for metrics and the log."""
        del demand.tickets[ticket]
        self.waiting -= 1
        waited = self._fleet_state.clock() - ticket.since
        self._effects.record(WaitEnded(demand.profile.model, waited, outcome))

    def close(self, demand: Demand, error: FleetError | None = None) -> None:
        """Ends a demand; those who still wait get the error."""
        self._by_key.pop(demand.key, None)
        for ticket in list(demand.tickets):
            assert error is not None
            self.dismiss(demand, ticket, error.reason.value)
            ticket.waiter.on_failed(error)

    def refresh(self, demand: Demand, profile: Profile) -> None:
        """The model's catalogue entry has changed; its longest wait counts from now on."""
        demand.profile = profile
        wait = self._longest_wait(profile)
        for ticket in demand.tickets:
            ticket.deadline = ticket.since + wait

    def _longest_wait(self, profile: Profile) -> float:
        return profile.max_wait_seconds or self._fleet_state.policy.max_wait

    # -- time ---------------------------------------------------------------------------------

    def expire(self, now: float) -> list[Demand]:
        """Ends the waits that have lasted too long, with QUEUE_TIMEOUT.

        Returns: the demands that they were for.
        """
        expired: dict[DemandKey, Demand] = {}
        for demand in self.all():
            while (at := demand.first_deadline) is not None and at <= now:
                ticket = next(iter(demand.tickets))
                reason = demand.step.reason if isinstance(demand.step, Queued) else ""
                waited = now - ticket.since
                error = errors.waited_too_long(demand.profile.model, waited, reason)
                self.dismiss(demand, ticket, error.reason.value)
                ticket.waiter.on_failed(error)
                expired[demand.key] = demand
        return list(expired.values())

    def in_turn(self, now: float) -> list[Demand]:
        """All demands in the order in which they are looked at.

        Urgent ones first, oldest first; then the others by age, or by residency class before age
        where the policy says `priority`.
        """
        policy = self._fleet_state.policy
        by_class = policy.strategy is Strategy.PRIORITY

        def turn(demand: Demand) -> tuple[bool, int, float]:
            urgent = demand.is_urgent(now, policy.patience)
            rank = -demand.profile.residency_class if by_class and not urgent else 0
            return (not urgent, rank, demand.since)

        return sorted(self._by_key.values(), key=turn)

    def look_again(self) -> None:
        """Makes all demands due: something has changed that may change an answer."""
        self._is_news = True

    def take_due(self, now: float) -> bool:
        """True if news or the clock may have changed an answer; the news counts as seen then."""
        if self._is_news:
            self._is_news = False
            return True
        return any(d.retry_at is not None and d.retry_at <= now for d in self._by_key.values())

    def next_due(self, first: float | None) -> float | None:
        """The earliest of `first` and whatever is due here."""
        for demand in self._by_key.values():
            for moment in (demand.retry_at, demand.first_deadline):
                if moment is not None and (first is None or moment < first):
                    first = moment
        return first
