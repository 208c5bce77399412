"""What one neuron offers to a model, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from services.backplane.units import format_bytes
from services.registry.scheduler import eviction, filters
from services.registry.scheduler.clearing import after_eviction
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PLACEABLE,
    PlacementCandidate,
    PlacementOutcome,
    PlacementRequest,
)
from services.registry.scheduler.rivals import coming, rivals
from services.registry.scheduler.spread import Spread, usable

# How fast a model is by where it is computed; the less, the better.
WHOLE_ON_GPUS: Final = 0
PARTLY_ON_GPUS: Final = 1
ON_THE_HOST: Final = 2
# An instance that is replaced where it is costs nobody else anything: before every other plan.
_IN_PLACE: Final = (float("-inf"), 0, (), 0, "")


def examine(request: PlacementRequest, neuron_info: NeuronInfo) -> PlacementCandidate:
    """Says what one neuron offers to a model, by the first rule that applies.

    1. The model could never run there, or only another neuron was asked for: IMPOSSIBLE.
    2. The neuron takes nothing now, or has just failed to load this model: UNAVAILABLE.
    3. It has an instance of the model: a useless one (failed, outdated) is replaced; any other is
       the only one there: BLOCKED, or WAIT while it is being loaded or unloaded.
    4. A model from which it is kept apart is about to be loaded there: WAIT.
    5. The model fits into what is free, and no rival (see `rivals`) is there: FREE_FIT.
    6. Too few devices are open to it (busy with loads, reserved, quarantined): WAIT where that
       ends by itself, else UNAVAILABLE.
    7. Nothing may be evicted for it: BLOCKED.
    8. It fits once other instances, rivals among them, have gone: EVICT, or DRAIN where one of
       them has work; WAIT where they may not go now; BLOCKED where they may never go.
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
    if apart := coming(request.profile, neuron_info):
        reason = f"{apart} is being loaded there, and they are kept apart (anti_affinity)"
        return PlacementCandidate(
            neuron_info.neuron, PlacementOutcome.WAIT, reason, free_bytes=free, rank=(1, 0.0)
        )
    return free_fit(request, neuron_info) or after_eviction(request, neuron_info, free)


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
    free = usable(profile, neuron_info).open_free[request.kind]
    is_slow = request.kind == "cpu" or not (
        neuron_info.open_free["cuda"] or neuron_info.open_free["gpu"]
    )
    for spread in request.spreads_on(neuron_info):
        if spread.count <= len(free) and free[spread.count - 1] >= spread.need_bytes:
            return (
                -neuron_info.wishes_met(profile),
                not neuron_info.has_files(profile),
                ON_THE_HOST if is_slow else WHOLE_ON_GPUS,
                -neuron_info.resident_share(profile),
                neuron_info.work,
                -free[spread.count - 1],
                neuron_info.neuron,
            )
    return None


def free_fit(request: PlacementRequest, neuron_info: NeuronInfo) -> PlacementCandidate | None:
    """The neuron as a candidate where the model fits into what is free; else None."""
    if neuron_info.refusal or neuron_info.neuron in request.avoided:
        return None
    if request.only_neuron and neuron_info.neuron != request.only_neuron:
        return None
    if request.profile.model in neuron_info.models or coming(request.profile, neuron_info):
        return None
    devices = [
        d
        for d in usable(request.profile, neuron_info).devices_of(request.kind)
        if d.capacity_bytes > 0 and request.is_open(neuron_info, d)
    ]
    for spread in request.spreads_on(neuron_info):
        fitting = [d for d in devices if d.free_bytes >= spread.need_bytes]
        if rivals(request.profile, neuron_info, spread.taken(fitting)):
            fitting = [d for d in fitting if not _has_rivals(request, neuron_info, spread, d)]
        if len(fitting) >= spread.count and _host_takes(request, neuron_info, spread):
            if not request.is_possible(neuron_info):
                return None
            fitting.sort(key=lambda d: (-d.free_bytes, d.device_id))
            return _fitting(request, neuron_info, fitting[: spread.count], spread)
    return None


def _has_rivals(
    request: PlacementRequest, neuron_info: NeuronInfo, spread: Spread, device: DeviceInfo
) -> bool:
    return bool(rivals(request.profile, neuron_info, spread.taken([device])))


def _host_takes(request: PlacementRequest, neuron_info: NeuronInfo, spread: Spread) -> bool:
    """True if the host's memory takes its part now. Layers keep other loads from it, too."""
    host = neuron_info.host
    if not spread.host_bytes or host is None:
        return not spread.layers
    if spread.layers and not request.is_open(neuron_info, host):
        return False
    return host.free_bytes >= spread.host_bytes


def _fitting(
    request: PlacementRequest, neuron_info: NeuronInfo, devices: list[DeviceInfo], spread: Spread
) -> PlacementCandidate:
    free = min(d.free_bytes for d in devices)
    resident = neuron_info.resident_share(request.profile)
    files = neuron_info.files_told(request.profile)
    return PlacementCandidate(
        neuron_info.neuron,
        PlacementOutcome.FREE_FIT,
        f"{format_bytes(free)} are free; it needs {spread.described(request.footprint.layers)}"
        + (f", and {files}" if files else ""),
        device_ids=spread.taken(devices),
        needs=spread.needs(devices, neuron_info.host),
        free_bytes=free,
        predicted_seconds=request.load_seconds(neuron_info.neuron, resident),
        rank=(
            -neuron_info.wishes_met(request.profile),
            not files,
            _slowness(spread, devices),
            -resident,
            neuron_info.work,
            -free,
            neuron_info.neuron,
        ),
    )


def _slowness(spread: Spread, devices: Sequence[DeviceInfo]) -> int:
    if devices[0].kind == "cpu":
        return ON_THE_HOST
    return PARTLY_ON_GPUS if spread.layers else WHOLE_ON_GPUS
