"""What is wanted, by whom, and the job that is to meet it: the records of placement."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from services.backplane.errors import FleetError
from services.backplane.security.principals import SYSTEM
from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import LoadProgress
from services.registry.placement.progress import PlacementWaiter, Step


@dataclasses.dataclass(frozen=True, slots=True)
class DemandKey:
    """What a demand is for. Callers whose key is the same share one demand.

    Attributes:
        neuron: where it must be; empty for anywhere.
        replicas: how many instances there must be that requests can be sent to.
    """

    model: str
    neuron: str = ""
    replicas: int = 1


@dataclasses.dataclass(eq=False, slots=True)
class Ticket:
    """One caller that waits for a demand.

    Attributes:
        excluded: instances that this caller found unable to serve.
        principal: who asks.
        since: when it came; deadline: when it gives up. Monotonic clock.
    """

    key: DemandKey
    waiter: PlacementWaiter
    excluded: frozenset[str]
    principal: str
    since: float
    deadline: float


class Phase(enum.Enum):
    """How far a placement job has come."""

    EVICTING = "evicting"
    SETTLING = "settling"
    """A victim is gone; the neuron's next report is waited for, which says how much is free."""
    LOADING = "loading"


@dataclasses.dataclass(eq=False, slots=True, kw_only=True)
class PlacementJob:
    """One placement that is being carried out: instances are evicted, then the model is loaded.

    Attributes:
        profile: as it was when the decision was made.
        principal: who is charged for what it does.
        device_ids: that no other load begins on meanwhile.
        needs: bytes by device, what is beside them in the host's memory among it.
        victims: ids of the instances that still have to go, next first.
        leaving: id of the instance that is being unloaded; empty where none is.
        deadline: when its phase has taken too long; monotonic seconds.
        free_bytes: on its devices when the load began; capacity_bytes: of them, when empty.
        resident: share of the model's files that was in the page cache then.
    """

    order_id: int
    demand: Demand
    profile: Profile
    principal: str
    neuron: str
    incarnation_id: str
    address: str
    device_ids: tuple[str, ...]
    needs: Mapping[str, int]
    predicted_seconds: float
    started_at: float
    victims: list[str] = dataclasses.field(default_factory=list[str])
    victim_models: tuple[str, ...] = ()
    leaving: str = ""
    phase: Phase = Phase.EVICTING
    phase_since: float = 0.0
    deadline: float = float("inf")
    progress: LoadProgress = dataclasses.field(default_factory=LoadProgress)
    free_bytes: int = 0
    capacity_bytes: int = 0
    resident: float = 0.0

    @property
    def key(self) -> DemandKey:
        """What its demand is for."""
        return self.demand.key

    def eta(self, now: float) -> float | None:
        """Seconds until the model is ready; None where it has taken longer than was expected."""
        if self.phase is not Phase.LOADING:
            return self.predicted_seconds
        elapsed = now - self.phase_since
        ratio = self.progress.ratio
        if ratio is not None and 0.1 < ratio < 1.0:  # noqa: PLR2004 - too early to extrapolate
            return elapsed * (1 - ratio) / ratio
        left = self.predicted_seconds - elapsed
        return left if left > 0 else None


@dataclasses.dataclass(eq=False, slots=True)
class Demand:
    """A model that is wanted, with all callers who want it.

    Attributes:
        is_detached: it is carried out even if nobody waits for it.
        keep_alive: seconds of idleness that a client asked for, for the instance that comes of it.
        may_evict: False where only free room is wanted.
        avoided: neurons that failed it, with the reason.
        failures: loads that failed; losses: neurons lost under them.
        replans: plans that fresh figures overturned.
        redirects: drains that were given up for something idle.
        unavailable_since: since when every possible neuron takes nothing; None while one does.
        retry_at: when the clock alone may change the answer.
    """

    key: DemandKey
    profile: Profile
    since: float
    tickets: dict[Ticket, None] = dataclasses.field(default_factory=dict[Ticket, None])
    is_detached: bool = False
    may_evict: bool = True
    keep_alive: float | None = None
    job: PlacementJob | None = None
    step: Step | None = None
    avoided: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    failures: int = 0
    losses: int = 0
    replans: int = 0
    redirects: int = 0
    last_error: FleetError | None = None
    unavailable_since: float | None = None
    retry_at: float | None = None

    @property
    def is_abandoned(self) -> bool:
        """True if nobody waits for it, and nobody asked that it goes on without them."""
        return not self.tickets and not self.is_detached

    @property
    def principal(self) -> str:
        """Who is charged for the load: the first of those who wait; empty where nobody waits."""
        for ticket in self.tickets:
            return ticket.principal
        return SYSTEM

    @property
    def first_deadline(self) -> float | None:
        """When the first caller gives up; they give up in the order in which they came."""
        for ticket in self.tickets:
            return ticket.deadline
        return None

    def is_urgent(self, now: float, patience: float) -> bool:
        """True once it has waited so long that busy instances may be drained for it."""
        return bool(self.tickets or self.is_detached) and now - self.since >= patience

    def tell(self, step: Step) -> None:
        """Tells all callers that wait, unless it is what they were told last."""
        if step != self.step:
            self.step = step
            for ticket in self.tickets:
                ticket.waiter.on_step(step)
