"""Runs the load of one job: its order, its deadline, and what is learned from its end.

A fixed limit would cut off large models on slow disks and leave small ones hanging: a load may take
longer for more bytes, and longer while it makes progress.
"""

from __future__ import annotations

from typing import Final

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.records import CPU, Instance, LoadProgress
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Phase, PlacementJob
from services.registry.placement.neighbours import Neighbour, Neighbours
from services.registry.placement.orders import Effects, LoadEnded, LoadOrder
from services.registry.scheduler.cache import SchedulerCache

# The start of a worker, the first token and the neuron's own queue.
_BASE_SECONDS: Final = 120.0
# No disk or network in use is expected to be slower for long.
_SLOWEST_BYTES_PER_SECOND: Final = 10e6
# Silence that ends a load: a multiple of what the whole load usually takes, and no less than this.
_SILENCE_SECONDS: Final = 120.0
_SILENCE_FACTOR: Final = 3.0


class LoadRunner:
    """From cleared devices to an instance that is ready, or to the reason why there is none."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        effects: Effects,
        neighbours: Neighbours,
    ) -> None:
        self._neighbours = neighbours
        self._fleet_state = fleet_state
        self._cache = cache
        self._effects = effects

    def begin(self, job: PlacementJob, now: float) -> None:
        """Orders the load, and sets its deadline."""
        neuron_info = self._cache.of(job.neuron)
        devices = [d for d in neuron_info.devices if d.device_id in job.device_ids]
        job.free_bytes = sum(d.free_bytes for d in devices)
        job.capacity_bytes = sum(d.capacity_bytes for d in devices)
        job.resident = neuron_info.resident_share(job.profile)
        job.phase, job.phase_since = Phase.LOADING, now
        total_bytes = sum(job.needs.values())
        job.deadline = now + allowance(total_bytes, job.predicted_seconds)
        source = job.profile.terms.source
        keeps = self._fleet_state.policy.abandoned_loads == "keep"
        order = LoadOrder(
            order_id=job.order_id,
            neuron=job.neuron,
            incarnation_id=job.incarnation_id,
            address=job.address,
            profile=job.profile,
            principal=job.principal,
            device_ids=job.device_ids,
            needs=job.needs,
            detach=job.demand.is_detached or keeps,
            neighbours=self._neighbours.of(source, without=job.neuron),
        )
        self._neighbours.note_load(job.order_id, source, Neighbour(job.neuron, job.address))
        model = job.profile.model
        self._cache.occupy(job.neuron, job.device_ids, f"loading {model}", model=model)
        self._cache.promise(job.neuron, job.order_id, job.needs.get(CPU, 0))
        self._effects.record(order)
        self._effects.load(order)

    def note_progress(self, job: PlacementJob, progress: LoadProgress, now: float) -> None:
        """Takes in a message of progress; the deadline is extended if something has moved."""
        job.deadline = extended(job.deadline, now, job.progress, progress, job.predicted_seconds)
        job.progress = progress

    def note_ready(self, job: PlacementJob, instance: Instance, now: float) -> None:
        """Lists the new instance; learns how long its load took and how much memory it holds."""
        fleet_state = self._fleet_state
        seconds = now - job.phase_since
        self._neighbours.note_end(job.order_id)
        fleet_state.fleet.announce(job.neuron, job.incarnation_id, instance, now)
        member = fleet_state.fleet.members.get(job.neuron)
        fleet_state.activity.observe(job.neuron, member, now)
        record = fleet_state.activity.of(instance.instance_id)
        if record is not None:
            record.load_seconds = seconds
            record.keep_alive = job.demand.keep_alive
            record.is_chosen = bool(job.key.neuron)
        learned = fleet_state.footprints.observe(
            job.profile, job.neuron, instance, seconds, resident=job.resident
        )
        self._cache.forget(job.neuron)
        self._effects.record(LoadEnded(job.profile.model, job.neuron, seconds, learned=learned))

    def note_failed(self, job: PlacementJob, error: FleetError, now: float) -> None:
        """Records a failed load; running out of memory teaches how much more it needs."""
        learned = {}
        self._neighbours.note_end(job.order_id)
        if error.reason is Reason.OUT_OF_MEMORY:
            learned = self._fleet_state.footprints.ran_out(
                job.profile, len(job.device_ids), job.free_bytes, job.capacity_bytes
            )
        seconds = now - job.phase_since
        self._effects.record(
            LoadEnded(
                job.profile.model,
                job.neuron,
                seconds,
                failure=error.reason.value,
                message=error.message,
                learned=learned,
            )
        )


def allowance(total_bytes: int, learned_seconds: float) -> float:
    """Seconds until a load must be over, unless it makes progress."""
    by_size = _BASE_SECONDS + total_bytes / _SLOWEST_BYTES_PER_SECOND
    return max(by_size, _SILENCE_FACTOR * learned_seconds)


def extended(
    deadline: float, now: float, old: LoadProgress, new: LoadProgress, learned_seconds: float
) -> float:
    """The deadline after a sign of life; only a sign that something moved extends it."""
    if new == old:
        return deadline
    return max(deadline, now + max(_SILENCE_SECONDS, learned_seconds))
