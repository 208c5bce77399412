"""Carries one placement through: victims go one by one, figures are refreshed, the load runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.registry import eviction, load_deadline
from services.registry.candidate import Candidate
from services.registry.demand import Demand, Job, Key, Phase
from services.registry.eviction import Incoming
from services.registry.freeing import Freeing
from services.registry.member import Instance, Progress
from services.registry.orders import Effects, LoadEnded, LoadOrder, Why
from services.registry.situation import Situation
from services.registry.standings import Standings
from services.registry.steps import Evicting, Loading, Step
from services.registry.unloads import Unloads

# A neuron reports at every change; if no report comes after an unload, the load says the truth.
_SETTLE_SECONDS: Final = 3.0
# Plans that fresh figures overturn before the neuron is asked anyway.
_MOST_REPLANS: Final = 3


class Jobs:
    """All placements under way, by order id. At most one per model and per device."""

    def __init__(
        self,
        situation: Situation,
        standings: Standings,
        effects: Effects,
        *,
        on_ready: Callable[[Key], None],
        on_failed: Callable[[Key, str, FleetError], None],
        on_overturned: Callable[[Key], None],
    ) -> None:
        self._situation = situation
        self._standings = standings
        self._effects = effects
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._on_overturned = on_overturned
        self._ids = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._demands: dict[int, Demand] = {}
        self._evictions: dict[int, Job] = {}
        self._freeing = Freeing(situation.fleet, standings)
        self._released = False
        self.unloads = Unloads(situation, standings, effects, self._ids)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def of_model(self, model: str) -> list[Job]:
        """Placements of one model."""
        return [j for j in self._jobs.values() if j.profile.model == model]

    def is_draining(self, job: Job) -> bool:
        """True if it waits for running requests of a victim."""
        return job.phase is Phase.EVICTING and any(
            h.in_flight
            for h in self._standings.of(job.neuron).holdings
            if self._standings.is_leaving(h.instance_id)
        )

    # -- from decision to load ----------------------------------------------------------------

    def begin(self, demand: Demand, candidate: Candidate, now: float) -> Job:
        """Starts to carry a decision out."""
        identity = self._situation.fleet.members[candidate.neuron].identity
        job = Job(
            next(self._ids),
            demand.key,
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
        self._jobs[job.order_id] = job
        self._demands[job.order_id] = demand
        self._standings.occupy(job.neuron, job.device_ids, f"being cleared for {job.key.model}")
        self._next(job, now)
        return job

    def step_of(self, job: Job, now: float) -> Step:
        """What those who wait are told."""
        if job.phase is Phase.LOADING:
            return Loading(job.neuron, job.progress, job.eta(now))
        return Evicting(job.neuron, job.victim_models, job.eta(now))

    def _next(self, job: Job, now: float) -> None:
        """Asks the next victim to go, or begins the load."""
        member = self._situation.fleet.members.get(job.neuron)
        if member is None or member.is_lost:
            self._fail(job, _lost(job.neuron))
            return
        fits = self._fits(job)
        while job.victims:
            instance = member.instance(job.victims[0])
            own = instance is not None and instance.model == job.profile.model
            if instance is None or (fits and not own):
                job.victims.pop(0)
                continue
            if self._is_protected(job, instance.instance_id, now):
                self._overturn(job)
            else:
                self._evict(job, instance, now)
            return
        if not fits and self._demands[job.order_id].replans < _MOST_REPLANS:
            self._overturn(job)
            return
        self._load(job, now)

    def _is_protected(self, job: Job, instance_id: str, now: float) -> bool:
        """True if the victim may not go any more: work or a caller has come to it meanwhile."""
        policy = self._situation.policy
        incoming = Incoming(
            job.profile.residency_class,
            self._demands[job.order_id].is_urgent(now, policy.patience),
            now,
            policy.strategy,
        )
        return any(
            eviction.immunity(h, incoming) or eviction.delay(h, incoming)
            for h in self._standings.of(job.neuron).holdings
            if h.instance_id == instance_id
        )

    def _overturn(self, job: Job) -> None:
        """What has been learned since overturns the plan; another one is made."""
        self._end(job)
        self._on_overturned(job.key)

    def _evict(self, job: Job, instance: Instance, now: float) -> None:
        demand = self._demands[job.order_id]
        policy = self._situation.policy
        record = self._situation.activity.of(instance.instance_id)
        idle = now - record.last_used if record else 0.0
        waited = now - demand.since
        busy = f"{instance.in_flight} requests in flight" if instance.in_flight else "idle"
        job.victims.pop(0)
        job.phase, job.phase_since = Phase.EVICTING, now
        self.unloads.order(
            job.neuron,
            instance,
            Why.EVICTED,
            drain_seconds=policy.drain_timeout,
            for_model=job.profile.model,
            reason=(
                f"{policy.strategy.value}: {busy}, last used {idle:.1f} s ago; "
                f"{job.profile.model} has waited {waited:.1f} s"
            ),
            on_end=lambda error: self._evicted(job, error),
        )

    def _evicted(self, job: Job, error: FleetError | None) -> None:
        if job.order_id not in self._jobs:
            return
        if error is not None:
            self._fail(job, error)
            return
        now = self._situation.clock()
        job.phase, job.phase_since = Phase.SETTLING, now
        job.deadline = now + _SETTLE_SECONDS
        if not self._situation.fleet.awaits_report(job.neuron):
            self._next(job, now)

    def _load(self, job: Job, now: float) -> None:
        demand = self._demands[job.order_id]
        rooms = [r for r in self._standings.of(job.neuron).rooms if r.device_id in job.device_ids]
        job.free_bytes = sum(r.free_bytes for r in rooms)
        job.capacity_bytes = sum(r.capacity_bytes for r in rooms)
        job.phase, job.phase_since = Phase.LOADING, now
        allowance = load_deadline.allowance(
            job.need_bytes * len(job.device_ids), job.predicted_seconds
        )
        job.deadline = now + allowance
        order = LoadOrder(
            job.order_id,
            job.neuron,
            job.incarnation_id,
            job.address,
            job.profile,
            job.device_ids,
            detach=demand.is_detached or self._situation.policy.abandoned_loads == "keep",
        )
        self._standings.occupy(job.neuron, job.device_ids, f"loading {job.key.model}")
        self._effects.record(order)
        self._effects.load(order)

    def _fits(self, job: Job) -> bool:
        rooms = {r.device_id: r for r in self._standings.of(job.neuron).rooms}
        return all(
            device in rooms and rooms[device].free_bytes >= job.need_bytes
            for device in job.device_ids
        )

    # -- news ---------------------------------------------------------------------------------

    def on_member(self, name: str, now: float) -> None:
        """A neuron reported, was lost or has left."""
        member = self._situation.fleet.members.get(name)
        for job in [j for j in self._jobs.values() if j.neuron == name]:
            gone = member is None or member.identity.incarnation_id != job.incarnation_id
            if gone or (member is not None and member.is_lost):
                self._effects.cancel_load(job.order_id)
                self._fail(job, _lost(name))
            elif job.phase is Phase.SETTLING and not self._situation.fleet.awaits_report(name):
                self._next(job, now)
        if self._freeing.advance(now):
            self._released = True
        self.unloads.on_member(name)

    def on_load_progress(self, order_id: int, progress: Progress) -> None:
        """A load says how far it is."""
        job = self._jobs.get(order_id)
        if job is None:
            return
        now = self._situation.clock()
        job.deadline = load_deadline.extended(
            job.deadline, now, job.progress, progress, job.predicted_seconds
        )
        job.progress = progress
        self._demands[order_id].tell(self.step_of(job, now))

    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        """A load has ended well. One that we gave up meanwhile is simply there."""
        job = self._jobs.get(order_id)
        if job is None:
            return
        situation, now = self._situation, self._situation.clock()
        seconds = now - job.phase_since
        situation.fleet.announce(job.neuron, job.incarnation_id, instance, now)
        member = situation.fleet.members.get(job.neuron)
        situation.activity.observe(job.neuron, member, now)
        record = situation.activity.of(instance.instance_id)
        if record is not None:
            record.load_seconds = seconds
        learned = situation.footprints.observe(job.profile, job.neuron, instance.memory, seconds)
        self._end(job)
        self._effects.record(LoadEnded(job.key.model, job.neuron, seconds, learned=learned))
        self._on_ready(job.key)

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """A load has ended badly."""
        job = self._jobs.get(order_id)
        if job is not None:
            self._fail(job, error)

    # -- time ---------------------------------------------------------------------------------

    def advance(self, now: float) -> bool:
        """Ends what has taken too long. Returns True if a device became free by that."""
        released = self._freeing.advance(now) or self._released
        self._released = False
        for job in list(self._jobs.values()):
            if job.deadline > now:
                continue
            if job.phase is Phase.SETTLING:
                self._next(job, now)
            else:
                seconds = now - job.phase_since
                message = (
                    f"The load on {job.neuron} made no progress; given up after {seconds:.0f} s."
                )
                self._fail(job, FleetError(Reason.LOAD_FAILED, message))
                self._abandon(job, now)
        return released

    def next_due(self) -> float | None:
        """When `advance` has something to do."""
        first = self._freeing.next_due()
        for job in self._jobs.values():
            if job.deadline != float("inf") and (first is None or job.deadline < first):
                first = job.deadline
        return first

    def _abandon(self, job: Job, now: float) -> None:
        """Ends a load at the neuron; its devices are busy until they are free."""
        self._effects.cancel_load(job.order_id)
        self._freeing.begin(job.neuron, job.key.model, job.device_ids, now)

    def drop(self, job: Job) -> None:
        """Nobody wants it any more. A victim that is leaving still leaves."""
        if job.order_id in self._jobs:
            was_loading = job.phase is Phase.LOADING
            self._end(job)
            if was_loading:
                self._abandon(job, self._situation.clock())

    # -- ends ---------------------------------------------------------------------------------

    def _fail(self, job: Job, error: FleetError) -> None:
        learned = {}
        if error.reason is Reason.OUT_OF_MEMORY:
            learned = self._situation.footprints.ran_out(
                job.profile, len(job.device_ids), job.free_bytes, job.capacity_bytes
            )
        seconds = self._situation.clock() - job.phase_since
        self._end(job)
        self._effects.record(
            LoadEnded(
                job.key.model, job.neuron, seconds, error.reason.value, error.message, learned
            )
        )
        self._on_failed(job.key, job.neuron, error)

    def _end(self, job: Job) -> None:
        del self._jobs[job.order_id]
        del self._demands[job.order_id]
        self._standings.release(job.neuron, job.device_ids)


def _lost(neuron: str) -> FleetError:
    return FleetError(
        Reason.NEURON_LOST, f"{neuron} was lost while the model was being placed on it."
    )
