"""All neurons, sorted in the ways in which the scheduler looks for the best one.

Three orders are kept up to date, a few microseconds for each neuron that changes: by free room, by
the turn of what is loaded, by the end of protections. So a decision among ten thousand neurons
looks at those that could be the answer, and not at all of them.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from services.registry.fleet.policy import Strategy
from services.registry.scheduler import eviction
from services.registry.scheduler.eviction import EvictionOrder, Incoming
from services.registry.scheduler.neuron_info import KINDS, InstanceInfo, NeuronInfo

# Everything that `eviction.immunity` reads: instances of one group are all immune, or none is.
_Group: TypeAlias = tuple[bool, bool, bool, int]
# A time or a turn, the neuron, and which of its instances.
_Ends: TypeAlias = list[tuple[float, str, int]]
_Turns: TypeAlias = list[tuple[EvictionOrder, str, int]]


class NeuronIndex:
    """What the scheduler knows of each neuron. After a change the neuron is put in again.

    Args:
        strategy: of eviction; it sorts the instances.
        neuron_infos: what to begin with.
    """

    def __init__(self, strategy: Strategy, neuron_infos: Iterable[NeuronInfo] = ()) -> None:
        self._strategy = strategy
        self._by_name: dict[str, NeuronInfo] = {}
        self._by_room: dict[str, list[tuple[int, int, str]]] = {kind: [] for kind in KINDS}
        self._stored: Counter[str] = Counter()
        self._resident: dict[str, dict[str, float]] = {}
        self._by_turn: dict[_Group, _Turns] = {}
        self._by_end: _Ends = []
        for neuron_info in neuron_infos:
            self.put(neuron_info)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[NeuronInfo]:
        return iter(self._by_name.values())

    def get(self, neuron: str) -> NeuronInfo | None:
        """What is known of a neuron, or None."""
        return self._by_name.get(neuron)

    # -- keeping ------------------------------------------------------------------------------

    def put(self, neuron_info: NeuronInfo) -> None:
        """Takes a neuron in, in the place of what was known of it."""
        old = self._by_name.get(neuron_info.neuron)
        if old == neuron_info:
            return
        if old is not None:
            self._take_out(old)
        self._by_name[neuron_info.neuron] = neuron_info
        self._take_in(neuron_info)

    def discard(self, neuron: str) -> None:
        """Drops a neuron that has left; unknown ones are ignored."""
        old = self._by_name.pop(neuron, None)
        if old is not None:
            self._take_out(old)

    def _take_in(self, neuron_info: NeuronInfo) -> None:
        neuron = neuron_info.neuron
        for kind, free in neuron_info.open_free.items():
            if free:
                bisect.insort(self._by_room[kind], (free[0], neuron_info.work, neuron))
        self._stored.update(neuron_info.stored)
        for name, share in neuron_info.resident.items():
            self._resident.setdefault(name, {})[neuron] = share
        for index, instance in enumerate(neuron_info.instances):
            turns = self._by_turn.setdefault(_group(instance), [])
            bisect.insort(turns, (eviction.turn(instance, self._strategy), neuron, index))
            bisect.insort(self._by_end, (instance.protected_until, neuron, index))

    def _take_out(self, neuron_info: NeuronInfo) -> None:
        neuron = neuron_info.neuron
        for kind, free in neuron_info.open_free.items():
            if free:
                entries = self._by_room[kind]
                del entries[bisect.bisect_left(entries, (free[0], neuron_info.work, neuron))]
        for name in neuron_info.stored:
            self._stored[name] -= 1
            if not self._stored[name]:
                del self._stored[name]
        for name in neuron_info.resident:
            del self._resident[name][neuron]
            if not self._resident[name]:
                del self._resident[name]
        for index, instance in enumerate(neuron_info.instances):
            group = _group(instance)
            turns = self._by_turn[group]
            turn = eviction.turn(instance, self._strategy)
            del turns[bisect.bisect_left(turns, (turn, neuron, index))]
            if not turns:
                del self._by_turn[group]
            ends = self._by_end
            del ends[bisect.bisect_left(ends, (instance.protected_until, neuron, index))]

    # -- looking ------------------------------------------------------------------------------

    def with_room(self, kind: str, least_bytes: int) -> Iterator[tuple[int, int, NeuronInfo]]:
        """Neurons where a load may begin now on a device with at least so much free memory.

        Args:
            kind: of the device: `cuda`, `cpu`, or empty for any.
            least_bytes: free on the largest such device.

        Yields: requests in flight, bytes free on the largest device, the neuron; least work first,
            then most free.
        """
        entries = self._by_room[kind]
        first = bisect.bisect_left(entries, (least_bytes,))
        heap = [(work, -free, neuron) for free, work, neuron in entries[first:]]
        heapq.heapify(heap)
        while heap:
            work, free, neuron = heapq.heappop(heap)
            yield work, -free, self._by_name[neuron]

    def has_room(self, kind: str) -> bool:
        """True if a load may begin now on any device of a kind."""
        return bool(self._by_room[kind])

    def has_stored(self, *names: str) -> bool:
        """True if the files of a model or source of any of these names are on some disk."""
        return any(self._stored[name] for name in names)

    def resident(
        self, kind: str, least_bytes: int, *names: str
    ) -> Iterator[tuple[float, int, int, NeuronInfo]]:
        """Neurons with room that have files of any of these names in their page cache.

        Yields: the share of the files; then as `with_room`; most of the files first.
        """
        heap: list[tuple[float, int, int, str]] = []
        for name in names:
            for neuron, share in self._resident.get(name, {}).items():
                neuron_info = self._by_name[neuron]
                room = neuron_info.open_free[kind]
                if room and room[0] >= least_bytes:
                    heap.append((-share, neuron_info.work, -room[0], neuron))
        heapq.heapify(heap)
        while heap:
            share, work, free, neuron = heapq.heappop(heap)
            yield -share, work, -free, self._by_name[neuron]

    def in_turn(
        self, incoming: Incoming
    ) -> Iterator[tuple[EvictionOrder, NeuronInfo, InstanceInfo]]:
        """All instances that may ever have to go for a model, whose turn it is first.

        Some of them may not go now; a neuron comes once for each of its instances.
        """
        open_to = [
            turns
            for turns in self._by_turn.values()
            if not eviction.immunity(self._instance(turns[0]), incoming)
        ]
        for entry in heapq.merge(*open_to):
            yield entry[0], self._by_name[entry[1]], self._instance(entry)

    def protections(self, now: float) -> Iterator[tuple[float, NeuronInfo, InstanceInfo]]:
        """Instances that are protected beyond a moment, in the order in which that ends."""
        ends = self._by_end
        for position in range(bisect.bisect_right(ends, now, key=_first), len(ends)):
            entry = ends[position]
            yield entry[0], self._by_name[entry[1]], self._instance(entry)

    def _instance(self, entry: tuple[object, str, int]) -> InstanceInfo:
        return self._by_name[entry[1]].instances[entry[2]]


def _first(entry: tuple[float, str, int]) -> float:
    return entry[0]


def _group(instance: InstanceInfo) -> _Group:
    return (instance.is_surplus, instance.is_pinned, instance.is_kept, instance.residency_class)
