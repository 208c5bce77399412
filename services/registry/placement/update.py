"""Brings instances up to date with what of their catalogue entry needs no load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import Instance
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import Effects, UpdateOrder

# What a report does not show by then was refused or lost; it is ordered once more.
_AGAIN_SECONDS: Final = 10.0


class UpdateRunner:
    """Orders updates, each once until the neuron's report can show it."""

    def __init__(self, fleet_state: FleetState, effects: Effects, ids: Iterator[int]) -> None:
        self._fleet_state = fleet_state
        self._effects = effects
        self._ids = ids
        # by instance: for which entry, and when
        self._ordered: dict[str, tuple[Profile, float]] = {}

    def order(self, neuron: str, instance: Instance, profile: Profile, now: float) -> None:
        """Orders an instance's update, unless the same was ordered just now."""
        told = self._ordered.get(instance.instance_id)
        if told is not None and told[0] == profile and now < told[1] + _AGAIN_SECONDS:
            return
        self._ordered = {k: v for k, v in self._ordered.items() if now < v[1] + _AGAIN_SECONDS}
        self._ordered[instance.instance_id] = profile, now
        identity = self._fleet_state.fleet.members[neuron].identity
        order = UpdateOrder(
            order_id=next(self._ids),
            neuron=neuron,
            incarnation_id=identity.incarnation_id,
            address=identity.address,
            instance_id=instance.instance_id,
            profile=profile,
        )
        self._effects.record(order)
        self._effects.update(order)
