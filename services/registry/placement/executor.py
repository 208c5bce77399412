"""Carries placements out: at most one per model and per device, and each has an end."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Demand, DemandKey, Phase, PlacementJob
from services.registry.placement.load import LoadRunner
from services.registry.placement.make_room import PlanCheck, RoomMaker
from services.registry.placement.neighbours import Neighbours
from services.registry.placement.orders import Effects
from services.registry.placement.progress import Evicting, Loading, Step
from services.registry.placement.reclaim import AbandonedLoads
from services.registry.placement.unload import UnloadRunner
from services.registry.placement.update import UpdateRunner
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import PlacementCandidate


class JobListener(Protocol):
    """Takes the end of each job, but for jobs that were dropped."""

    def on_ready(self, key: DemandKey) -> None:
        """The model of a demand is loaded."""

    def on_failed(self, key: DemandKey, neuron: str, error: FleetError) -> None:
        """A demand's model could not be loaded on this neuron."""

    def on_overturned(self, key: DemandKey) -> None:
        """Fresh figures overturned a demand's plan. Nothing failed; another plan is to be made."""


class PlacementExecutor:
    """Carries placements out: victims are unloaded one by one, then the model is loaded.

    Iterating it gives the jobs under way.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        effects: Effects,
        listener: JobListener,
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._effects = effects
        self._listener = listener
        self._ids = itertools.count(1)
        self._jobs: dict[int, PlacementJob] = {}
        self._abandoned_loads = AbandonedLoads(fleet_state.fleet, cache)
        self._released = False
        self.neighbours = Neighbours(fleet_state)
        self.unloads = UnloadRunner(fleet_state, cache, effects, self._ids)
        self.updates = UpdateRunner(fleet_state, effects, self._ids)
        self._room_maker = RoomMaker(fleet_state, cache, self.unloads)
        self._load_runner = LoadRunner(fleet_state, cache, effects, self.neighbours)

    def __iter__(self) -> Iterator[PlacementJob]:
        return iter(list(self._jobs.values()))

    def of_model(self, model: str) -> list[PlacementJob]:
        """The jobs of one model."""
        return [j for j in self._jobs.values() if j.profile.model == model]

    def is_draining(self, job: PlacementJob) -> bool:
        """True if it waits for running requests of an instance that is to go."""
        return self._room_maker.is_draining(job)

    def step_of(self, job: PlacementJob, now: float) -> Step:
        """The progress step of a job, as the callers who wait for it are sent it."""
        if job.phase is Phase.LOADING:
            return Loading(job.neuron, job.progress, job.eta(now))
        return Evicting(job.neuron, job.victim_models, job.eta(now))

    # -- from decision to load ----------------------------------------------------------------

    def begin(self, demand: Demand, candidate: PlacementCandidate, now: float) -> PlacementJob:
        """Starts to carry a decision out. The job may have ended already when this returns."""
        identity = self._fleet_state.fleet.members[candidate.neuron].identity
        job = PlacementJob(
            order_id=next(self._ids),
            demand=demand,
            profile=demand.profile,
            principal=demand.principal,
            neuron=candidate.neuron,
            incarnation_id=identity.incarnation_id,
            address=identity.address,
            device_ids=candidate.device_ids,
            needs=candidate.needs,
            predicted_seconds=candidate.predicted_seconds,
            started_at=now,
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
        """Frees a job's devices in the scheduler's view while the context is open.

        For asking what would be decided if the job were not there.
        """
        self._cache.release(job.neuron, job.device_ids)
        try:
            yield
        finally:
            if job.order_id in self._jobs:
                self._occupy(job)

    def _occupy(self, job: PlacementJob) -> None:
        why = f"being cleared for {job.profile.model}"
        self._cache.occupy(job.neuron, job.device_ids, why, model=job.profile.model)

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
                self._listener.on_overturned(job.key)
            case victim:
                self._room_maker.evict(job, victim, now, lambda error: self._evicted(job, error))

    def _evicted(self, job: PlacementJob, error: FleetError | None) -> None:
        if job.order_id not in self._jobs:
            return
        if error is not None:
            self._fail(job, error)
            return
        self._let(job, functools.partial(self._settle, job, self._fleet_state.clock()))

    def _settle(self, job: PlacementJob, now: float) -> None:
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
                self._let(job, functools.partial(self._go_on, job, now))
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
        """Closes the job of a load that succeeded; one given up is left to the reports."""
        job = self._jobs.get(order_id)
        if job is not None:
            self._let(job, functools.partial(self._ready, job, instance))

    def _ready(self, job: PlacementJob, instance: Instance) -> None:
        self._load_runner.note_ready(job, instance, self._fleet_state.clock())
        self._end(job)
        self._listener.on_ready(job.key)

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """Closes the job of a load that failed."""
        job = self._jobs.get(order_id)
        if job is not None:
            self._fail(job, error)

    # -- time ---------------------------------------------------------------------------------

    def advance(self, now: float) -> bool:
        """Ends what has taken too long.

        Returns: True if devices of an abandoned load have become free.
        """
        released = self._abandoned_loads.advance(now) or self._released
        self._released = False
        for job in [j for j in self._jobs.values() if j.deadline <= now]:
            self._let(job, functools.partial(self._overdue, job, now))
        return released

    def _overdue(self, job: PlacementJob, now: float) -> None:
        if job.phase is Phase.SETTLING:
            self._go_on(job, now)
        else:
            self._fail(job, _stuck(job, now))
            self._abandon(job, now)

    def _let(self, job: PlacementJob, step: Callable[[], None]) -> None:
        """Takes a job's next step; an exception that nobody foresaw ends this job and no other."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - it is noted
            fault = self._fleet_state.note_fault("placement-job", error)
            if self._jobs.get(job.order_id) is job:
                self._effects.cancel_load(job.order_id)
                self._end(job)
                self._listener.on_failed(job.key, job.neuron, fault)

    def next_due(self) -> float | None:
        """When `advance` has something to do."""
        first = self._abandoned_loads.next_due()
        for job in self._jobs.values():
            if job.deadline != float("inf") and (first is None or job.deadline < first):
                first = job.deadline
        return first

    # -- ends ---------------------------------------------------------------------------------

    def drop(self, job: PlacementJob) -> None:
        """Ends a job that is not wanted any more; an unload under way goes on to its end."""
        if job.order_id in self._jobs:
            was_load_runner = job.phase is Phase.LOADING
            self._end(job)
            if was_load_runner:
                self._abandon(job, self._fleet_state.clock())

    def _abandon(self, job: PlacementJob, now: float) -> None:
        """Ends a load at the neuron; its devices count as busy until they are free again."""
        self._effects.cancel_load(job.order_id)
        self._abandoned_loads.begin(job.neuron, job.profile.model, job.device_ids, now)

    def _fail(self, job: PlacementJob, error: FleetError) -> None:
        self._load_runner.note_failed(job, error, self._fleet_state.clock())
        self._end(job)
        self._listener.on_failed(job.key, job.neuron, error)

    def _end(self, job: PlacementJob) -> None:
        del self._jobs[job.order_id]
        self._cache.release(job.neuron, job.device_ids)
        self._cache.redeem(job.neuron, job.order_id)


def _lost(neuron: str) -> FleetError:
    return FleetError(
        Reason.NEURON_LOST, f"{neuron} was lost while the model was being placed on it."
    )


def _stuck(job: PlacementJob, now: float) -> FleetError:
    seconds = now - job.phase_since
    message = f"The load on {job.neuron} made no progress; given up after {seconds:.0f} s."
    return FleetError(Reason.LOAD_FAILED, message)
