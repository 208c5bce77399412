"""All placements under way: at most one per model and per device, each with an end."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Demand, DemandKey, Phase, PlacementJob
from services.registry.placement.load import LoadRunner
from services.registry.placement.make_room import PlanCheck, RoomMaker
from services.registry.placement.orders import Effects
from services.registry.placement.progress import Evicting, Loading, Step
from services.registry.placement.reclaim import AbandonedLoads
from services.registry.placement.unload import UnloadRunner
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import PlacementCandidate


class PlacementExecutor:
    """Placements by order id."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        effects: Effects,
        *,
        on_ready: Callable[[DemandKey], None],
        on_failed: Callable[[DemandKey, str, FleetError], None],
        on_overturned: Callable[[DemandKey], None],
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._effects = effects
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._on_overturned = on_overturned
        self._ids = itertools.count(1)
        self._jobs: dict[int, PlacementJob] = {}
        self._abandoned_loads = AbandonedLoads(fleet_state.fleet, cache)
        self._released = False
        self.unloads = UnloadRunner(fleet_state, cache, effects, self._ids)
        self._room_maker = RoomMaker(fleet_state, cache, self.unloads)
        self._load_runner = LoadRunner(fleet_state, cache, effects)

    def __iter__(self) -> Iterator[PlacementJob]:
        return iter(list(self._jobs.values()))

    def of_model(self, model: str) -> list[PlacementJob]:
        """Placements of one model."""
        return [j for j in self._jobs.values() if j.profile.model == model]

    def is_draining(self, job: PlacementJob) -> bool:
        """True if it waits for running requests of a victim."""
        return self._room_maker.is_draining(job)

    def step_of(self, job: PlacementJob, now: float) -> Step:
        """What those who wait are told."""
        if job.phase is Phase.LOADING:
            return Loading(job.neuron, job.progress, job.eta(now))
        return Evicting(job.neuron, job.victim_models, job.eta(now))

    # -- from decision to load ----------------------------------------------------------------

    def begin(self, demand: Demand, candidate: PlacementCandidate, now: float) -> PlacementJob:
        """Starts to carry a decision out. The demand's job may be over when this returns."""
        identity = self._fleet_state.fleet.members[candidate.neuron].identity
        job = PlacementJob(
            next(self._ids),
            demand,
            demand.profile,
            candidate.neuron,
            identity.incarnation_id,
            identity.address,
            candidate.device_ids,
            candidate.need_bytes,
            candidate.predicted_seconds,
            now,
            victims=[v.instance_id for v in candidate.victims],
            victim_models=tuple(v.model for v in candidate.victims),
            phase_since=now,
        )
        self._jobs[job.order_id] = demand.job = job
        self._occupy(job)
        self._go_on(job, now)
        return job

    @contextlib.contextmanager
    def set_aside(self, job: PlacementJob) -> Generator[None]:
        """Leaves a job's devices to others while the context is open: what if it were not there?"""
        self._cache.release(job.neuron, job.device_ids)
        try:
            yield
        finally:
            if job.order_id in self._jobs:
                self._occupy(job)

    def _occupy(self, job: PlacementJob) -> None:
        why = f"being cleared for {job.profile.model}"
        self._cache.occupy(job.neuron, job.device_ids, why)

    def _go_on(self, job: PlacementJob, now: float) -> None:
        """Asks the next victim to go, or begins the load."""
        member = self._fleet_state.fleet.members.get(job.neuron)
        if member is None or member.is_lost:
            self._fail(job, _lost(job.neuron))
            return
        match self._room_maker.next_of(job, now):
            case PlanCheck.CLEAR:
                self._load_runner.begin(job, now)
            case PlanCheck.OVERTURNED:
                self._end(job)
                self._on_overturned(job.key)
            case victim:
                self._room_maker.evict(job, victim, now, lambda error: self._evicted(job, error))

    def _evicted(self, job: PlacementJob, error: FleetError | None) -> None:
        if job.order_id not in self._jobs:
            return
        if error is not None:
            self._fail(job, error)
            return
        now = self._fleet_state.clock()
        self._room_maker.settle(job, now)
        if self._room_maker.is_settled(job):
            self._go_on(job, now)

    # -- news ---------------------------------------------------------------------------------

    def on_member(self, name: str, now: float) -> None:
        """A neuron reported, was lost or has left."""
        member = self._fleet_state.fleet.members.get(name)
        for job in [j for j in self._jobs.values() if j.neuron == name]:
            gone = member is None or member.identity.incarnation_id != job.incarnation_id
            if gone or (member is not None and member.is_lost):
                self._effects.cancel_load(job.order_id)
                self._fail(job, _lost(name))
            elif job.phase is Phase.SETTLING and self._room_maker.is_settled(job):
                self._go_on(job, now)
        if self._abandoned_loads.advance(now):
            self._released = True
        self.unloads.on_member(name)

    def on_load_progress(self, order_id: int, progress: LoadProgress) -> None:
        """A load says how far it is."""
        job = self._jobs.get(order_id)
        if job is not None:
            now = self._fleet_state.clock()
            self._load_runner.note_progress(job, progress, now)
            job.demand.tell(self.step_of(job, now))

    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        """A load has ended well. One that we gave up meanwhile is simply there."""
        job = self._jobs.get(order_id)
        if job is not None:
            self._load_runner.note_ready(job, instance, self._fleet_state.clock())
            self._end(job)
            self._on_ready(job.key)

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """A load has ended badly."""
        job = self._jobs.get(order_id)
        if job is not None:
            self._fail(job, error)

    # -- time ---------------------------------------------------------------------------------

    def advance(self, now: float) -> bool:
        """Ends what has taken too long. Returns True if a device became free by that."""
        released = self._abandoned_loads.advance(now) or self._released
        self._released = False
        for job in list(self._jobs.values()):
            if job.deadline > now:
                continue
            if job.phase is Phase.SETTLING:
                self._go_on(job, now)
            else:
                self._fail(job, _stuck(job, now))
                self._abandon(job, now)
        return released

    def next_due(self) -> float | None:
        """When `advance` has something to do."""
        first = self._abandoned_loads.next_due()
        for job in self._jobs.values():
            if job.deadline != float("inf") and (first is None or job.deadline < first):
                first = job.deadline
        return first

    # -- ends ---------------------------------------------------------------------------------

    def drop(self, job: PlacementJob) -> None:
        """Nobody wants it any more. A victim that is leaving still leaves."""
        if job.order_id in self._jobs:
            was_load_runner = job.phase is Phase.LOADING
            self._end(job)
            if was_load_runner:
                self._abandon(job, self._fleet_state.clock())

    def _abandon(self, job: PlacementJob, now: float) -> None:
        """Ends a load at the neuron; its devices are busy until they are free."""
        self._effects.cancel_load(job.order_id)
        self._abandoned_loads.begin(job.neuron, job.profile.model, job.device_ids, now)

    def _fail(self, job: PlacementJob, error: FleetError) -> None:
        self._load_runner.note_failed(job, error, self._fleet_state.clock())
        self._end(job)
        self._on_failed(job.key, job.neuron, error)

    def _end(self, job: PlacementJob) -> None:
        del self._jobs[job.order_id]
        self._cache.release(job.neuron, job.device_ids)


def _lost(neuron: str) -> FleetError:
    return FleetError(
        Reason.NEURON_LOST, f"{neuron} was lost while the model was being placed on it."
    )


def _stuck(job: PlacementJob, now: float) -> FleetError:
    seconds = now - job.phase_since
    message = f"The load on {job.neuron} made no progress; given up after {seconds:.0f} s."
    return FleetError(Reason.LOAD_FAILED, message)
