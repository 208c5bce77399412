"""By how much a neuron's totals of time and energy have grown, as far as they are believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.registry.store.ledger import DeviceTotal

# Principal, model, millijoules.
EnergyTotal = tuple[str, str, int]

MOST_SOURCE_ROWS: Final = 4097
"""Of one source: as many as a neuron keeps apart, and one for all others."""
MOST_GROWTH: Final = 2**40
"""Microseconds, of all totals of one source at one time: twelve days. What is beyond is put off, so
that no neuron can tell of time by which sums of many would not be numbers of 64 bits any more."""

_MOST_MILLIJOULES: Final = 128
"""Of a microsecond in which devices worked: 64 of them, which take turns, with two kilowatts."""


def growth(
    known: Iterable[Sequence[object]], totals: Sequence[DeviceTotal], most: int = MOST_GROWTH
) -> tuple[list[DeviceTotal], list[DeviceTotal]]:
    """How much totals have grown over the known ones; and the new totals of those that grew.

    Both within bounds: see `MOST_SOURCE_ROWS`, and `most` microseconds of growth in all.
    """
    before = {
        (str(one[0]), str(one[1])): tuple(int(str(value)) for value in one[2:6]) for one in known
    }
    grown: list[DeviceTotal] = []
    newer: list[DeviceTotal] = []
    left = max(0, most)
    for total in totals:
        if total[:2] not in before and len(before) >= MOST_SOURCE_ROWS:
            continue
        old = before.setdefault(total[:2], (0, 0, 0, 0))
        more: list[int] = []
        for new, was in zip(total[2:6], old, strict=True):
            more.append(min(max(0, new - was), left))
            left -= more[-1]
        if any(more):
            grown.append(DeviceTotal(*total[:2], *more))
            sums = [was + one for was, one in zip(old, more, strict=True)]
            newer.append(DeviceTotal(*total[:2], *sums))
    return grown, newer


def energy_growth(
    known: Iterable[Sequence[object]],
    totals: Sequence[DeviceTotal],
    times: Iterable[Sequence[object]],
) -> tuple[list[EnergyTotal], list[EnergyTotal]]:
    """How much totals of energy have grown over the known ones; and the new totals of those.

    Args:
        known: totals of energy before.
        totals: what the neuron tells.
        times: totals of time that are believed, later ones behind earlier ones: no neuron is
            believed more energy than the largest host can have used in them.
    """
    before = {(str(one[0]), str(one[1])): int(str(one[2])) for one in known}
    worked = {(str(one[0]), str(one[1])): int(str(one[2])) + int(str(one[3])) for one in times}
    grown: list[EnergyTotal] = []
    newer: list[EnergyTotal] = []
    for total in totals:
        key = total[:2]
        old = before.get(key, 0)
        new = min(total.millijoules, worked.get(key, 0) * _MOST_MILLIJOULES)
        if new > old:
            before[key] = new
            grown.append((*key, new - old))
            newer.append((*key, new))
    return grown, newer
