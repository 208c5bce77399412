"""Whether a model could ever run on a neuron, if nothing else were loaded there.

What is wrong for good is told apart from what is wrong for now (`NeuronInfo.refusal`): the first
is a configuration to mend, the second a wait.
"""

from __future__ import annotations

from services.backplane.units import format_bytes
from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Footprint
from services.registry.scheduler.neuron_info import NeuronInfo

Needs = tuple[tuple[int, int], ...]


def needs_of(profile: Profile, footprint: Footprint) -> Needs:
    """The ways to spread a model: (number of devices, bytes on each). Fewest devices first."""
    counts = range(profile.devices, profile.max_devices + 1)
    return tuple((count, footprint.per_device(count)) for count in counts)


def any_fits(needs: Needs, figures: tuple[int, ...]) -> bool:
    """True if one of the ways to spread a model fits into devices of these sizes, largest first."""
    most = len(figures)
    for count, need in needs:  # noqa: SIM110 - asked thousands of times; a generator costs double
        if count <= most and figures[count - 1] >= need:
            return True
    return False


def is_possible(profile: Profile, needs: Needs, neuron_info: NeuronInfo) -> bool:
    """True if the model could run there; the same as no `objection`, for many neurons at once."""
    return any_fits(needs, neuron_info.capacities[profile.device_kind]) and not _rule_objection(
        profile, neuron_info
    )


def objection(profile: Profile, footprint: Footprint, neuron_info: NeuronInfo) -> str:
    """Why the model can never run on a neuron, in a sentence; empty if it could.

    Looked at in this order: allowed neurons, required labels, engine, files, kind and number of
    devices, memory of each device when it is empty.
    """
    found = _rule_objection(profile, neuron_info)
    needs = needs_of(profile, footprint)
    if found or any_fits(needs, neuron_info.capacities[profile.device_kind]):
        return found
    return _device_objection(profile, footprint, neuron_info)


def _rule_objection(profile: Profile, neuron_info: NeuronInfo) -> str:
    if profile.neurons and neuron_info.neuron not in profile.neurons:
        return f"the model may run only on {', '.join(profile.neurons)}"
    for key, value in profile.labels.items():
        if neuron_info.labels.get(key) != value:
            return f"it lacks the label {key}={value}"
    terms = profile.terms
    if terms.engine and neuron_info.engines and terms.engine not in neuron_info.engines:
        return f"it has no engine {terms.engine} (it has {', '.join(neuron_info.engines)})"
    if not terms.source and profile.model not in neuron_info.stored:
        return "the model is not on its disk, and the catalogue names no source for it"
    return ""


def _device_objection(profile: Profile, footprint: Footprint, neuron_info: NeuronInfo) -> str:
    devices = neuron_info.devices_of(profile.device_kind)
    kind = f"{profile.device_kind} " if profile.device_kind else ""
    if len(devices) < profile.devices:
        return f"it has {len(devices)} {kind}devices; the model needs {profile.devices}"
    most = max(
        sum(c >= footprint.per_device(count) for c in neuron_info.capacities[profile.device_kind])
        for count in range(profile.devices, min(profile.max_devices, len(devices)) + 1)
    )
    needed = format_bytes(footprint.per_device(profile.devices))
    largest = format_bytes(max((d.capacity_bytes for d in devices), default=0))
    return (
        f"the model needs {needed} on each of {profile.devices} {kind}devices"
        f" ({footprint.source}); {most} are that large, the largest has {largest}"
    )
