"""Devices of abandoned loads: busy until the neuron reports that their memory is free again."""

from __future__ import annotations

import dataclasses
from typing import Final

from services.registry.fleet.members import Fleet
from services.registry.fleet.records import InstanceState
from services.registry.scheduler.cache import SchedulerCache

# A report that is older than the cancellation says nothing about it.
_SOONEST_SECONDS: Final = 0.1
# By then the neuron has freed it, or the next load will say so.
_LATEST_SECONDS: Final = 15.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Abandoned:
    neuron: str
    model: str
    device_ids: tuple[str, ...]
    sequence: int
    since: float


class AbandonedLoads:
    """Keeps the devices of abandoned loads occupied, and releases them."""

    def __init__(self, fleet: Fleet, cache: SchedulerCache) -> None:
        self._fleet = fleet
        self._cache = cache
        self._abandoned: list[_Abandoned] = []

    def begin(self, neuron: str, model: str, device_ids: tuple[str, ...], now: float) -> None:
        """Occupies the devices of a load that was just abandoned."""
        member = self._fleet.members.get(neuron)
        if member is None or member.is_lost:
            return
        sequence = member.report.sequence
        self._cache.occupy(neuron, device_ids, f"being freed of {model}", model=model)
        self._abandoned.append(_Abandoned(neuron, model, device_ids, sequence, now))

    def advance(self, now: float) -> bool:
        """Releases devices that are free by a newer report, or that have been kept for 15 seconds.

        Returns: True if there were any.
        """
        over = [a for a in self._abandoned if self._is_over(a, now)]
        for one in over:
            self._abandoned.remove(one)
            self._cache.release(one.neuron, one.device_ids)
        return bool(over)

    def next_due(self) -> float | None:
        """When the clock alone releases devices; None where none are kept."""
        return min((a.since + _LATEST_SECONDS for a in self._abandoned), default=None)

    def _is_over(self, one: _Abandoned, now: float) -> bool:
        member = self._fleet.members.get(one.neuron)
        if member is None or member.is_lost or now - one.since >= _LATEST_SECONDS:
            return True
        if member.report.sequence <= one.sequence or now - one.since < _SOONEST_SECONDS:
            return False
        return not any(
            i.model == one.model and i.state is InstanceState.LOADING
            for i in member.report.instances
        )
