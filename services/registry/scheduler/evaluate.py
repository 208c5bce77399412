"""What one neuron offers to a model, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from services.backplane.units import format_bytes
from services.registry.catalogue.profile import Profile
from services.registry.fleet.policy import Strategy
from services.registry.scheduler import eviction, filters
from services.registry.scheduler.eviction import EvictionPlan, Incoming, Turn
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PLACEABLE,
    PlacementCandidate,
    PlacementOutcome,
    PlacementRequest,
)

# An instance that is replaced where it is costs nobody else anything: before every other plan.
_IN_PLACE: Final = (float("-inf"), 0, (), 0, "")


def examine(request: PlacementRequest, neuron_info: NeuronInfo) -> PlacementCandidate:
    """Says what one neuron offers to a model, by the first rule that applies.

    1. The model could never run there, or only another neuron was asked for: IMPOSSIBLE.
    2. The neuron takes nothing now, or has just failed to load this model: UNAVAILABLE.
    3. It has an instance of the model: a useless one (failed, outdated) is replaced; any other is
       the only one there: BLOCKED, or WAIT while it is being loaded or unloaded.
    4. The model fits into what is free: FREE_FIT.
    5. Too few devices are open to it (busy with loads, reserved, quarantined): WAIT where that
       ends by itself, else UNAVAILABLE.
    6. Nothing may be evicted for it: BLOCKED.
    7. It fits once other instances have gone: EVICT, or DRAIN where one of them has work; WAIT
       where they may not go now; BLOCKED where they may never go.
    """
    objection = ""
    if neuron_info.is_known:
        objection = filters.objection(request.profile, request.footprint, neuron_info)
    if request.only_neuron and neuron_info.neuron != request.only_neuron:
        objection = f"only {request.only_neuron} was asked for"
    free = max((d.free_bytes for d in neuron_info.devices), default=0)
    if objection:
        return PlacementCandidate(
            neuron_info.neuron, PlacementOutcome.IMPOSSIBLE, objection, free_bytes=free
        )
    refusal = neuron_info.refusal or request.avoided.get(neuron_info.neuron, "")
    if refusal:
        return PlacementCandidate(
            neuron_info.neuron, PlacementOutcome.UNAVAILABLE, refusal, free_bytes=free
        )
    own = [i for i in neuron_info.instances if i.model == request.profile.model]
    if own:
        return _in_place(request, neuron_info, own, free)
    return free_fit(request, neuron_info) or _after_eviction(request, neuron_info, free)


def _in_place(
    request: PlacementRequest, neuron_info: NeuronInfo, own: list[InstanceInfo], free: int
) -> PlacementCandidate:
    """A neuron that has an instance already: only a useless one is replaced, in its place."""
    moving = [why for i in own if (why := eviction.delay(i, request.incoming))]
    if not all(i.is_surplus for i in own) or moving:
        outcome = PlacementOutcome.WAIT if moving else PlacementOutcome.BLOCKED
        reason = f"it has an instance already ({moving[0] if moving else 'ready'})"
        return PlacementCandidate(
            neuron_info.neuron, outcome, reason, free_bytes=free, rank=(0, 0.0)
        )
    freed: dict[str, int] = {}
    for instance in own:
        for device_id, held in instance.memory.items():
            freed[device_id] = freed.get(device_id, 0) + held
    cleared = dataclasses.replace(
        neuron_info,
        devices=tuple(
            dataclasses.replace(d, free_bytes=d.free_bytes + freed.get(d.device_id, 0))
            for d in neuron_info.devices
        ),
        instances=tuple(i for i in neuron_info.instances if i not in own),
        models=neuron_info.models - {request.profile.model},
    )
    found = examine(request, cleared)
    if found.outcome not in PLACEABLE:
        return found
    reason = f"{found.reason}, replacing the instance that is there"
    outcome = max(found.outcome, PlacementOutcome.EVICT)
    return dataclasses.replace(
        found, outcome=outcome, reason=reason, victims=(*own, *found.victims), rank=_IN_PLACE
    )


def free_bound(request: PlacementRequest, neuron_info: NeuronInfo) -> tuple[object, ...] | None:
    """A lower bound on the rank that `free_fit` gives, found quickly; None without room."""
    profile = request.profile
    free = neuron_info.open_free[profile.device_kind]
    for count, need in request.needs:
        if count <= len(free) and free[count - 1] >= need:
            return (
                -affinity(profile, neuron_info),
                not is_stored(profile, neuron_info),
                not neuron_info.open_free["cuda"],
                neuron_info.work,
                -free[count - 1],
                neuron_info.neuron,
            )
    return None


def free_fit(request: PlacementRequest, neuron_info: NeuronInfo) -> PlacementCandidate | None:
    """The neuron as a candidate where the model fits into what is free; else None."""
    if neuron_info.refusal or neuron_info.neuron in request.avoided:
        return None
    if request.only_neuron and neuron_info.neuron != request.only_neuron:
        return None
    profile = request.profile
    if profile.model in neuron_info.models:
        return None
    reserved = request.reserved.get(neuron_info.neuron, ())
    devices = [
        d
        for d in neuron_info.devices_of(profile.device_kind)
        if not (d.busy or d.quarantine or d.device_id in reserved) and d.capacity_bytes > 0
    ]
    for count, need in request.needs:
        fitting = [d for d in devices if d.free_bytes >= need]
        if len(fitting) >= count:
            if not filters.is_possible(profile, request.needs, neuron_info):
                return None
            fitting.sort(key=lambda d: (-d.free_bytes, d.device_id))
            return _fitting(request, neuron_info, fitting[:count], need)
    return None


def _fitting(
    request: PlacementRequest, neuron_info: NeuronInfo, devices: list[DeviceInfo], need: int
) -> PlacementCandidate:
    free = min(d.free_bytes for d in devices)
    on_disk = is_stored(request.profile, neuron_info)
    return PlacementCandidate(
        neuron_info.neuron,
        PlacementOutcome.FREE_FIT,
        f"{format_bytes(free)} are free; it needs {format_bytes(need)}"
        + (", and its files are there" if on_disk else ""),
        device_ids=tuple(d.device_id for d in devices),
        need_bytes=need,
        free_bytes=free,
        predicted_seconds=request.load_seconds(neuron_info.neuron),
        rank=(
            -affinity(request.profile, neuron_info),
            not on_disk,
            devices[0].kind != "cuda",
            neuron_info.work,
            -free,
            neuron_info.neuron,
        ),
    )


def _after_eviction(
    request: PlacementRequest, neuron_info: NeuronInfo, free: int
) -> PlacementCandidate:
    """The neuron as a candidate once something was evicted, or why nothing can be."""
    count, need, devices = _devices_to_clear(request, neuron_info)
    if len(devices) < count:
        reserved = request.reserved.get(neuron_info.neuron, ())
        why = [d.quarantine or d.busy for d in neuron_info.devices if d.quarantine or d.busy]
        why += ["kept for a model that has waited longer"] * bool(reserved)
        waiting = bool(reserved) or any(d.busy and not d.quarantine for d in neuron_info.devices)
        outcome = PlacementOutcome.WAIT if waiting else PlacementOutcome.UNAVAILABLE
        reason = "; ".join(dict.fromkeys(why)) or "its devices are taken"
        return PlacementCandidate(
            neuron_info.neuron, outcome, reason, free_bytes=free, rank=(1, 0.0)
        )
    if not request.may_evict:
        reason = "no free room, and nothing is evicted for this"
        return PlacementCandidate(
            neuron_info.neuron, PlacementOutcome.BLOCKED, reason, free_bytes=free
        )
    best: tuple[tuple[object, ...], EvictionPlan, list[DeviceInfo]] | None = None
    for chosen in _groups(devices, count, neuron_info, request.incoming):
        plan = eviction.make_room(chosen, need, neuron_info.instances, request.incoming)
        key = _plan_rank(plan, request.strategy)
        if best is None or key < best[0]:
            best = key, plan, chosen
    assert best is not None
    return _candidate_of_plan(request, neuron_info, best, need)


def _candidate_of_plan(
    request: PlacementRequest,
    neuron_info: NeuronInfo,
    best: tuple[tuple[object, ...], EvictionPlan, list[DeviceInfo]],
    need: int,
) -> PlacementCandidate:
    key, plan, devices = best
    if plan.victims:
        outcome = PlacementOutcome.DRAIN if plan.drains else PlacementOutcome.EVICT
        names = ", ".join(v.model for v in plan.victims)
        verb = "draining" if plan.drains else "evicting"
        reason = f"{format_bytes(need)} fit after {verb} {names}"
    else:
        outcome = PlacementOutcome.BLOCKED if plan.is_hopeless else PlacementOutcome.WAIT
        reason = plan.obstacle
    return PlacementCandidate(
        neuron_info.neuron,
        outcome,
        reason,
        device_ids=tuple(d.device_id for d in devices),
        need_bytes=need,
        free_bytes=min(d.free_bytes for d in devices),
        victims=plan.victims,
        waits_for=plan.waits_for,
        predicted_seconds=request.load_seconds(neuron_info.neuron),
        retry_at=plan.retry_at,
        rank=(-affinity(request.profile, neuron_info), *key, neuron_info.neuron),
    )


def _devices_to_clear(
    request: PlacementRequest, neuron_info: NeuronInfo
) -> tuple[int, int, list[DeviceInfo]]:
    """For the fewest devices that would do: how many, bytes needed on each, which are eligible."""
    profile = request.profile
    devices = neuron_info.devices_of(profile.device_kind)
    for count, need in request.needs:
        large = [d for d in devices if d.capacity_bytes > 0 and d.capacity_bytes >= need]
        if len(large) >= count:
            reserved = request.reserved.get(neuron_info.neuron, ())
            open_ones = [
                d for d in large if not (d.busy or d.quarantine or d.device_id in reserved)
            ]
            return count, need, open_ones
    return profile.devices, request.footprint.per_device(profile.devices), []


def dearest_bound(
    request: PlacementRequest, incoming: Incoming, neuron_info: NeuronInfo, first: Turn
) -> Turn | None:
    """A lower bound on the turn of the dearest victim of any plan, found quickly.

    Args:
        request: what is to be placed.
        incoming: the same, as eviction asks for it.
        neuron_info: where.
        first: the turn of the first instance there that may go now.

    Returns: `first` where one device will do; None where too few devices can be cleared now.
    """
    count, need, devices = _devices_to_clear(request, neuron_info)
    if count == 1 or request.profile.model in neuron_info.models:
        return first
    cheapest = {d.device_id: first for d in devices if d.free_bytes >= need}
    for instance in neuron_info.instances:
        if eviction.may_go_now(instance, incoming):
            turn = eviction.turn(instance, incoming.strategy)
            for device_id in instance.memory:
                cheapest[device_id] = min(turn, cheapest.get(device_id, turn))
    turns = sorted(cheapest[d.device_id] for d in devices if d.device_id in cheapest)
    return turns[count - 1] if len(turns) >= count else None


def _groups(
    devices: list[DeviceInfo], count: int, neuron_info: NeuronInfo, incoming: Incoming
) -> Iterable[list[DeviceInfo]]:
    """Sets of devices to plan for: each device alone, or those with most to free, together."""
    if count == 1:
        return ([device] for device in devices)
    reclaimable = dict.fromkeys((d.device_id for d in devices), 0)
    for instance in neuron_info.instances:
        if not eviction.immunity(instance, incoming) and not eviction.delay(instance, incoming):
            for device_id, held in instance.memory.items():
                if device_id in reclaimable:
                    reclaimable[device_id] += held
    easiest = sorted(devices, key=lambda d: (-d.free_bytes - reclaimable[d.device_id], d.device_id))
    return [easiest[:count]]


def _plan_rank(plan: EvictionPlan, strategy: Strategy) -> tuple[object, ...]:
    """Sort key of plans: without a drain first; then by the dearest victim; then by how many go."""
    if not plan.victims:
        end = plan.retry_at if plan.retry_at is not None else float("inf")
        return (3 if plan.is_hopeless else 2, (end,), 0)
    dearest = max(eviction.turn(v, strategy) for v in plan.victims)
    return (1 if plan.drains else 0, dearest, len(plan.victims))


def affinity(profile: Profile, neuron_info: NeuronInfo) -> int:
    """How many of the labels that the model prefers the neuron has."""
    if not profile.affinity:
        return 0
    return sum(neuron_info.labels.get(key) == value for key, value in profile.affinity.items())


def is_stored(profile: Profile, neuron_info: NeuronInfo) -> bool:
    """True if the model's files are on the neuron's disk."""
    return profile.model in neuron_info.stored or profile.terms.source in neuron_info.stored
