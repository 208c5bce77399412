"""Whether a model could ever run on a neuron, if nothing else were loaded there.

What is wrong for good is told apart from what is wrong for now (`NeuronInfo.refusal`): the first
is a configuration to mend, the second a wait.
"""

from __future__ import annotations

from services.backplane.units import format_bytes
from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Footprint
from services.registry.scheduler.neuron_info import NeuronInfo
from services.registry.scheduler.spread import (
    Spread,
    any_fits,
    kind_of,
    spreads_on,
    usable,
    whole_spreads,
)


def is_possible(
    profile: Profile, footprint: Footprint, whole: tuple[Spread, ...], neuron_info: NeuronInfo
) -> bool:
    """True if the model could run there; the same as no `objection`, for many neurons at once."""
    return _fits(profile, footprint, whole, neuron_info) and not _rule_objection(
        profile, neuron_info
    )


def objection(profile: Profile, footprint: Footprint, neuron_info: NeuronInfo) -> str:
    """Why the model can never run on a neuron, in a sentence; empty if it could.

    Looked at in this order: allowed neurons, required labels, engine, files, kind and number of
    devices, memory of each device when it is empty.
    """
    found = _rule_objection(profile, neuron_info)
    if found or _fits(profile, footprint, whole_spreads(profile, footprint), neuron_info):
        return found
    return _device_objection(profile, footprint, usable(profile, neuron_info))


def _fits(
    profile: Profile, footprint: Footprint, whole: tuple[Spread, ...], neuron_info: NeuronInfo
) -> bool:
    sizes = usable(profile, neuron_info).capacities[kind_of(profile, footprint)]
    spreads = spreads_on(profile, footprint, whole, neuron_info)
    return any_fits(spreads, sizes, neuron_info.host_capacity)


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
    wanted = kind_of(profile, footprint)
    devices = neuron_info.devices_of(wanted)
    kind = "equal cuda " if profile.is_divided else f"{wanted} " if wanted else ""
    spreads = spreads_on(profile, footprint, whole_spreads(profile, footprint), neuron_info)
    fewest, need, host = spreads[0].count, spreads[0].need_bytes, spreads[0].host_bytes
    if len(devices) < fewest:
        return f"it has {len(devices)} {kind}devices; the model needs {fewest}"
    sizes = neuron_info.capacities[wanted]
    if any_fits(spreads, sizes, footprint.total_bytes):
        return (
            f"the model needs {format_bytes(footprint.total_bytes)} ({footprint.source}),"
            f" {format_bytes(host)} of it in the host's memory;"
            f" that has {format_bytes(max(0, neuron_info.host_capacity))}"
        )
    most = max(sum(size >= one.need_bytes for size in sizes) for one in spreads)
    largest = format_bytes(max((d.capacity_bytes for d in devices), default=0))
    return (
        f"the model needs {format_bytes(need)} on each of {fewest} {kind}devices"
        f" ({footprint.source}); {most} are that large, the largest has {largest}"
    )
