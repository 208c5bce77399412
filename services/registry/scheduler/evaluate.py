"""A look at one neuron: what it offers to a model, with a reason for whatever comes out. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from services.backplane.units import format_bytes
from services.registry.catalogue.profile import Profile
from services.registry.fleet.policy import Strategy
from services.registry.scheduler import eviction, filters
from services.registry.scheduler.eviction import Incoming, Plan, Turn
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import PLACEABLE, Candidate, Outcome, PlacementRequest

# A copy that is replaced where it is costs nobody else anything: before every other plan.
_IN_PLACE: Final = (float("-inf"), 0, (), 0, "")


def examine(ask: PlacementRequest, standing: NeuronInfo) -> Candidate:
    """Looks at one neuron, with a reason for whatever comes out."""
    objection = ""
    if standing.is_known:
        objection = filters.objection(ask.profile, ask.footprint, standing)
    if ask.only_neuron and standing.neuron != ask.only_neuron:
        objection = f"only {ask.only_neuron} was asked for"
    free = max((r.free_bytes for r in standing.rooms), default=0)
    if objection:
        return Candidate(standing.neuron, Outcome.IMPOSSIBLE, objection, free_bytes=free)
    refusal = standing.refusal or ask.avoided.get(standing.neuron, "")
    if refusal:
        return Candidate(standing.neuron, Outcome.UNAVAILABLE, refusal, free_bytes=free)
    own = [h for h in standing.holdings if h.model == ask.profile.model]
    if own:
        return _in_place(ask, standing, own, free)
    return free_fit(ask, standing) or _after_eviction(ask, standing, free)


def _in_place(
    ask: PlacementRequest, standing: NeuronInfo, own: list[InstanceInfo], free: int
) -> Candidate:
    """The neuron that has a copy: a useless one is replaced, any other is the only one there."""
    moving = [why for h in own if (why := eviction.delay(h, ask.incoming))]
    if not all(h.is_surplus for h in own) or moving:
        outcome = Outcome.WAIT if moving else Outcome.BLOCKED
        reason = f"it has a copy already ({moving[0] if moving else 'ready'})"
        return Candidate(standing.neuron, outcome, reason, free_bytes=free, rank=(0, 0.0))
    freed: dict[str, int] = {}
    for holding in own:
        for device, held in holding.memory.items():
            freed[device] = freed.get(device, 0) + held
    cleared = dataclasses.replace(
        standing,
        rooms=tuple(
            dataclasses.replace(r, free_bytes=r.free_bytes + freed.get(r.device_id, 0))
            for r in standing.rooms
        ),
        holdings=tuple(h for h in standing.holdings if h not in own),
        models=standing.models - {ask.profile.model},
    )
    found = examine(ask, cleared)
    if found.outcome not in PLACEABLE:
        return found
    reason = f"{found.reason}, replacing the copy that is there"
    outcome = max(found.outcome, Outcome.EVICT)
    return dataclasses.replace(
        found, outcome=outcome, reason=reason, victims=(*own, *found.victims), rank=_IN_PLACE
    )


def free_bound(ask: PlacementRequest, standing: NeuronInfo) -> tuple[object, ...] | None:
    """A rank that `free_fit` can at best give it; None where there is no room. Cheap."""
    profile = ask.profile
    free = standing.open_free[profile.device_kind]
    for count, need in ask.needs:
        if count <= len(free) and free[count - 1] >= need:
            return (
                -affinity(profile, standing),
                not is_stored(profile, standing),
                not standing.open_free["cuda"],
                standing.work,
                -free[count - 1],
                standing.neuron,
            )
    return None


def free_fit(ask: PlacementRequest, standing: NeuronInfo) -> Candidate | None:
    """The neuron with room as it is, or None."""
    if standing.refusal or standing.neuron in ask.avoided:
        return None
    if ask.only_neuron and standing.neuron != ask.only_neuron:
        return None
    profile = ask.profile
    if profile.model in standing.models:
        return None
    held = ask.held.get(standing.neuron, ())
    rooms = [
        r
        for r in standing.rooms_of(profile.device_kind)
        if not (r.busy or r.quarantine or r.device_id in held) and r.capacity_bytes > 0
    ]
    for count, need in ask.needs:
        fitting = [r for r in rooms if r.free_bytes >= need]
        if len(fitting) >= count:
            if not filters.is_possible(profile, ask.needs, standing):
                return None
            fitting.sort(key=lambda r: (-r.free_bytes, r.device_id))
            return _fitting(ask, standing, fitting[:count], need)
    return None


def _fitting(
    ask: PlacementRequest, standing: NeuronInfo, rooms: list[DeviceInfo], need: int
) -> Candidate:
    free = min(r.free_bytes for r in rooms)
    on_disk = is_stored(ask.profile, standing)
    return Candidate(
        standing.neuron,
        Outcome.FREE_FIT,
        f"{format_bytes(free)} are free; it needs {format_bytes(need)}"
        + (", and its files are there" if on_disk else ""),
        device_ids=tuple(r.device_id for r in rooms),
        need_bytes=need,
        free_bytes=free,
        predicted_seconds=ask.load_seconds(standing.neuron),
        rank=(
            -affinity(ask.profile, standing),
            not on_disk,
            rooms[0].kind != "cuda",
            standing.work,
            -free,
            standing.neuron,
        ),
    )


def _after_eviction(ask: PlacementRequest, standing: NeuronInfo, free: int) -> Candidate:
    """The neuron once something has left, or why nothing can."""
    count, need, rooms = _devices_to_clear(ask, standing)
    if len(rooms) < count:
        held = ask.held.get(standing.neuron, ())
        why = [r.quarantine or r.busy for r in standing.rooms if r.quarantine or r.busy]
        why += ["kept for a model that has waited longer"] * bool(held)
        waiting = bool(held) or any(r.busy and not r.quarantine for r in standing.rooms)
        outcome = Outcome.WAIT if waiting else Outcome.UNAVAILABLE
        reason = "; ".join(dict.fromkeys(why)) or "its devices are taken"
        return Candidate(standing.neuron, outcome, reason, free_bytes=free, rank=(1, 0.0))
    if not ask.may_evict:
        reason = "no free room, and nothing is evicted for this"
        return Candidate(standing.neuron, Outcome.BLOCKED, reason, free_bytes=free)
    best: tuple[tuple[object, ...], Plan, list[DeviceInfo]] | None = None
    for chosen in _groups(rooms, count, standing, ask.incoming):
        plan = eviction.make_room(chosen, need, standing.holdings, ask.incoming)
        key = _plan_rank(plan, ask.strategy)
        if best is None or key < best[0]:
            best = key, plan, chosen
    assert best is not None
    return _candidate_of_plan(ask, standing, best, need)


def _candidate_of_plan(
    ask: PlacementRequest,
    standing: NeuronInfo,
    best: tuple[tuple[object, ...], Plan, list[DeviceInfo]],
    need: int,
) -> Candidate:
    key, plan, rooms = best
    if plan.victims:
        outcome = Outcome.DRAIN if plan.drains else Outcome.EVICT
        names = ", ".join(v.model for v in plan.victims)
        verb = "draining" if plan.drains else "evicting"
        reason = f"{format_bytes(need)} fit after {verb} {names}"
    else:
        outcome = Outcome.BLOCKED if plan.is_hopeless else Outcome.WAIT
        reason = plan.obstacle
    return Candidate(
        standing.neuron,
        outcome,
        reason,
        device_ids=tuple(r.device_id for r in rooms),
        need_bytes=need,
        free_bytes=min(r.free_bytes for r in rooms),
        victims=plan.victims,
        waits_for=plan.waits_for,
        predicted_seconds=ask.load_seconds(standing.neuron),
        retry_at=plan.retry_at,
        rank=(-affinity(ask.profile, standing), *key, standing.neuron),
    )


def _devices_to_clear(
    ask: PlacementRequest, standing: NeuronInfo
) -> tuple[int, int, list[DeviceInfo]]:
    """For the fewest devices that would do: how many, the need on each, and which are eligible."""
    profile = ask.profile
    rooms = standing.rooms_of(profile.device_kind)
    for count, need in ask.needs:
        large = [r for r in rooms if r.capacity_bytes > 0 and r.capacity_bytes >= need]
        if len(large) >= count:
            held = ask.held.get(standing.neuron, ())
            open_ones = [r for r in large if not (r.busy or r.quarantine or r.device_id in held)]
            return count, need, open_ones
    return profile.devices, ask.footprint.per_device(profile.devices), []


def dearest_bound(
    ask: PlacementRequest, incoming: Incoming, standing: NeuronInfo, first: Turn
) -> Turn | None:
    """The least turn that the dearest victim of a plan can have. Cheap.

    Args:
        ask: what is to be placed.
        incoming: the same, as eviction asks for it.
        standing: where.
        first: the turn of the first copy there that may go now.

    Returns: `first` where one device will do; None where too few devices can be cleared now.
    """
    count, need, rooms = _devices_to_clear(ask, standing)
    if count == 1 or ask.profile.model in standing.models:
        return first
    cheapest = {r.device_id: first for r in rooms if r.free_bytes >= need}
    for holding in standing.holdings:
        if eviction.may_go_now(holding, incoming):
            turn = eviction.turn(holding, incoming.strategy)
            for device in holding.memory:
                cheapest[device] = min(turn, cheapest.get(device, turn))
    turns = sorted(cheapest[r.device_id] for r in rooms if r.device_id in cheapest)
    return turns[count - 1] if len(turns) >= count else None


def _groups(
    rooms: list[DeviceInfo], count: int, standing: NeuronInfo, incoming: Incoming
) -> Iterable[list[DeviceInfo]]:
    """Sets of devices worth a plan: each alone, or the most easily cleared together."""
    if count == 1:
        return ([room] for room in rooms)
    reclaimable = dict.fromkeys((r.device_id for r in rooms), 0)
    for holding in standing.holdings:
        if not eviction.immunity(holding, incoming) and not eviction.delay(holding, incoming):
            for device, held in holding.memory.items():
                if device in reclaimable:
                    reclaimable[device] += held
    easiest = sorted(rooms, key=lambda r: (-r.free_bytes - reclaimable[r.device_id], r.device_id))
    return [easiest[:count]]


def _plan_rank(plan: Plan, strategy: Strategy) -> tuple[object, ...]:
    """Among plans: possible before not; then whose dearest victim is missed least; then fewest."""
    if not plan.victims:
        end = plan.retry_at if plan.retry_at is not None else float("inf")
        return (3 if plan.is_hopeless else 2, (end,), 0)
    dearest = max(eviction.turn(v, strategy) for v in plan.victims)
    return (1 if plan.drains else 0, dearest, len(plan.victims))


def affinity(profile: Profile, standing: NeuronInfo) -> int:
    """How many of the model's wishes for labels the neuron meets."""
    if not profile.affinity:
        return 0
    return sum(standing.labels.get(key) == value for key, value in profile.affinity.items())


def is_stored(profile: Profile, standing: NeuronInfo) -> bool:
    """True if the model's files are on the neuron's disk."""
    return profile.model in standing.stored or profile.terms.source in standing.stored
