"""What a neuron could offer a model after evictions, or why nothing may be evicted there."""

from __future__ import annotations

from collections.abc import Iterable

from services.registry.fleet.policy import Strategy
from services.registry.scheduler import eviction
from services.registry.scheduler.eviction import EvictionOrder, EvictionPlan, Incoming
from services.registry.scheduler.neuron_info import DeviceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PlacementCandidate,
    PlacementOutcome,
    PlacementRequest,
)
from services.registry.scheduler.rivals import rivals
from services.registry.scheduler.spread import Spread, usable


def after_eviction(
    request: PlacementRequest, neuron_info: NeuronInfo, free: int
) -> PlacementCandidate:
    """The neuron as a candidate after the best eviction, or the reason why there is none."""
    spread, devices = _devices_to_clear(request, neuron_info)
    if len(devices) < spread.count:
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
    host = neuron_info.host
    best: tuple[tuple[object, ...], EvictionPlan, list[DeviceInfo]] | None = None
    for chosen in _groups(devices, spread.count, neuron_info, request.incoming):
        needs = spread.needs(chosen, host)
        cleared = [*chosen, host] if host is not None and spread.host_bytes else chosen
        plan = eviction.make_room(
            cleared,
            needs,
            neuron_info.instances,
            request.incoming,
            rivals=rivals(request.profile, neuron_info, spread.taken(chosen)),
        )
        key = _plan_rank(plan, request.strategy)
        if best is None or key < best[0]:
            best = key, plan, chosen
    assert best is not None
    return _candidate_of_plan(request, neuron_info, best, spread)


def _candidate_of_plan(
    request: PlacementRequest,
    neuron_info: NeuronInfo,
    best: tuple[tuple[object, ...], EvictionPlan, list[DeviceInfo]],
    spread: Spread,
) -> PlacementCandidate:
    key, plan, devices = best
    resident = neuron_info.resident_share(request.profile)
    if plan.victims:
        outcome = PlacementOutcome.DRAIN if plan.drains else PlacementOutcome.EVICT
        because = rivals(request.profile, neuron_info, spread.taken(devices))
        names = ", ".join(
            f"{v.model} ({because[v.instance_id]})" if v.instance_id in because else v.model
            for v in plan.victims
        )
        verb = "draining" if plan.drains else "evicting"
        reason = f"{spread.described(request.footprint.layers)} fit after {verb} {names}"
        reason += f"; {neuron_info.files_told(request.profile)}" if resident else ""
    else:
        outcome = PlacementOutcome.BLOCKED if plan.is_hopeless else PlacementOutcome.WAIT
        reason = plan.obstacle
    return PlacementCandidate(
        neuron_info.neuron,
        outcome,
        reason,
        device_ids=spread.taken(devices),
        needs=spread.needs(devices, neuron_info.host),
        free_bytes=min(d.free_bytes for d in devices),
        victims=plan.victims,
        waits_for=plan.waits_for,
        predicted_seconds=request.load_seconds(neuron_info.neuron, resident),
        retry_at=plan.retry_at,
        rank=(-neuron_info.wishes_met(request.profile), *key, -resident, neuron_info.neuron),
    )


def _devices_to_clear(
    request: PlacementRequest, neuron_info: NeuronInfo
) -> tuple[Spread, list[DeviceInfo]]:
    """The way to spread the model over the fewest devices that would do; which are eligible."""
    devices = usable(request.profile, neuron_info).devices_of(request.kind)
    spreads, host = request.spreads_on(neuron_info), neuron_info.host
    for spread in spreads:
        large = [
            d for d in devices if d.capacity_bytes > 0 and d.capacity_bytes >= spread.need_bytes
        ]
        if len(large) >= spread.count:
            if spread.layers and (host is None or not request.is_open(neuron_info, host)):
                return spread, []
            return spread, [d for d in large if request.is_open(neuron_info, d)]
    return spreads[0], []


def last_victim_bound(
    request: PlacementRequest, incoming: Incoming, neuron_info: NeuronInfo, first: EvictionOrder
) -> EvictionOrder | None:
    """A lower bound, found quickly, on the turn of the last victim of any plan on a neuron.

    Args:
        request: what is to be placed.
        incoming: the same, as eviction asks for it.
        neuron_info: where.
        first: the turn of the first instance there that may go now.

    Returns: `first` where one device will do; None where too few devices can be cleared now.
    """
    spread, devices = _devices_to_clear(request, neuron_info)
    count = spread.count
    if count == 1 or request.profile.model in neuron_info.models:
        return first
    cheapest = {d.device_id: first for d in devices if d.free_bytes >= spread.need_bytes}
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
