"""Whether a model could ever run on a neuron, were it empty and at rest. Pure.

What is wrong for good is told apart from what is wrong for now (`Standing.refusal`): the first
is a configuration to mend, the second a wait.
"""

from __future__ import annotations

from services.registry.footprints import Footprint
from services.registry.profile import Profile
from services.registry.quantities import format_bytes
from services.registry.standing import Room, Standing


def objection(profile: Profile, footprint: Footprint, standing: Standing) -> str:
    """Why the model can never run there, in a sentence; empty if it could."""
    if profile.neurons and standing.neuron not in profile.neurons:
        return f"the model may run only on {', '.join(profile.neurons)}"
    for key, value in profile.labels.items():
        if standing.labels.get(key) != value:
            return f"it lacks the label {key}={value}"
    engine = profile.terms.engine
    if engine and standing.engines and engine not in standing.engines:
        return f"it has no engine {engine} (it has {', '.join(standing.engines)})"
    if not profile.terms.source and profile.model not in standing.stored:
        return "the model is not on its disk, and the catalogue names no source for it"
    return _device_objection(profile, footprint, standing)


def _device_objection(profile: Profile, footprint: Footprint, standing: Standing) -> str:
    rooms = rooms_of_kind(profile, standing)
    kind = f"{profile.device_kind} " if profile.device_kind else ""
    if len(rooms) < profile.devices:
        return f"it has {len(rooms)} {kind}devices; the model needs {profile.devices}"
    most = 0
    for count in range(profile.devices, min(profile.max_devices, len(rooms)) + 1):
        need = footprint.per_device(count)
        large = [r for r in rooms if r.capacity_bytes > 0 and r.capacity_bytes >= need]
        if len(large) >= count:
            return ""
        most = max(most, len(large))
    needed = format_bytes(footprint.per_device(profile.devices))
    largest = format_bytes(max((r.capacity_bytes for r in rooms), default=0))
    return (
        f"the model needs {needed} on each of {profile.devices} {kind}devices"
        f" ({footprint.source}); "
        f"{most} are that large, the largest has {largest}"
    )


def rooms_of_kind(profile: Profile, standing: Standing) -> list[Room]:
    """The devices that the model may use. Devices of two kinds never share one model."""
    if profile.device_kind:
        return [r for r in standing.rooms if r.kind == profile.device_kind]
    cuda = [r for r in standing.rooms if r.kind == "cuda"]
    return cuda or list(standing.rooms)
