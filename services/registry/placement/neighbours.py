"""Which neurons have the files of a hub's repository, or are fetching them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from services.registry.fleet.state import FleetState

_HUB: str = "hf:"
_MOST_REMEMBERED = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """A neuron that may have files which another one needs.

    Attributes:
        address: host:port of its services.
    """

    name: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Load:
    source: str
    where: Neighbour


class Neighbours:
    """Finds neurons that files can be fetched from instead of the hub."""

    def __init__(self, fleet_state: FleetState) -> None:
        """Has seen no load yet.

        Args:
            fleet_state: what neurons have on their disks.
        """
        self._fleet_state = fleet_state
        self._loads: dict[int, _Load] = {}

    def of(self, source: str, *, without: str) -> tuple[Neighbour, ...]:
        """Those that have files of a source, then those whose load of it has begun.

        Nobody has files of another source than a hub's.

        Args:
            source: as in LoadSpec.
            without: the neuron that asks.
        """
        if not source.startswith(_HUB):
            return ()
        found = dict.fromkeys([*self._holders(source), *self._loading(source)])
        return tuple(one for one in found if one.name != without)

    def note_load(self, order_id: int, source: str, where: Neighbour) -> None:
        """Records a load that has begun: its neuron may soon have the files."""
        if source.startswith(_HUB):
            self._loads[order_id] = _Load(source, where)
            for oldest in list(self._loads)[:-_MOST_REMEMBERED]:
                del self._loads[oldest]

    def note_end(self, order_id: int) -> None:
        """Forgets a load that has ended: the neuron's reports list its files."""
        self._loads.pop(order_id, None)

    def _holders(self, source: str) -> Iterator[Neighbour]:
        for member in self._fleet_state.fleet.members.values():
            if member.can_serve and any(
                _is_of(source, stored.origin) for stored in member.report.stored
            ):
                yield Neighbour(member.name, member.identity.address)

    def _loading(self, source: str) -> Iterator[Neighbour]:
        wanted = _repository(source)
        for load in self._loads.values():
            if _repository(load.source) == wanted:
                yield load.where


def _is_of(source: str, origin: str) -> bool:
    return bool(origin) and _repository(source) == origin


def _repository(source: str) -> str:
    """`hf:OWNER/NAME@REVISION` of `hf:OWNER/NAME@REVISION/FILES#sha256=HEX`."""
    whole, _, _ = source.partition("#")
    owner, _, rest = whole.partition("/")
    name, _, _ = rest.partition("/")
    return f"{owner}/{name}"
