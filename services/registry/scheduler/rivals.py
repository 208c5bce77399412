"""Which instances a model is never loaded beside: exclusive groups and anti-affinity. Pure."""

from __future__ import annotations

from collections.abc import Collection

from services.registry.catalogue.profile import Profile
from services.registry.scheduler.neuron_info import NeuronInfo


def rivals(
    profile: Profile, neuron_info: NeuronInfo, device_ids: Collection[str]
) -> dict[str, str]:
    """Instances that must go before a model is loaded on some devices of a neuron, and why.

    1. Required anti-affinity: an instance of such a model anywhere on the neuron.
    2. An exclusive group: an instance of another model of the group that is computed on one of the
       devices. The host's memory is a device for models that are computed there, all or in part,
       and not for what a model on GPUs keeps there.
    3. Whatever its state, and whether or not there is room for both.

    Preferred anti-affinity makes no rivals: it is a wish (`NeuronInfo.wishes_met`).

    Args:
        profile: the model that is to be loaded.
        neuron_info: where.
        device_ids: that it would be computed on.

    Returns: by instance id, the rule for people.
    """
    if not profile.has_rivals:
        return {}
    found: dict[str, str] = {}
    for instance in neuron_info.instances:
        if instance.model in profile.apart_from:
            found[instance.instance_id] = "anti_affinity"
        elif instance.model in profile.exclusive_with and instance.is_on(device_ids):
            found[instance.instance_id] = f"exclusive group {profile.exclusive_group}"
    return found


def coming(profile: Profile, neuron_info: NeuronInfo) -> str:
    """A model being loaded on the neuron that this one must not be beside; empty if none is.

    Of exclusive groups nothing is said here: no two loads begin on one device.
    """
    if not (profile.apart_from and neuron_info.coming):
        return ""
    return min(neuron_info.coming.intersection(profile.apart_from), default="")
