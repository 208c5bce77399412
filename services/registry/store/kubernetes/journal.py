"""What was used lately, in one object with those who told it; what is older moves to months. Pure.

A report has to be added with its number, and the growth of a neuron's totals with the totals: one
object holds both, and one write changes both. It holds the last hour only. What is older moves to
the object of its month, in three writes, of which each can be repeated by whoever leads:

1. the rows are set aside in the journal, with the part of the month that will take them;
2. the part takes them, and notes the number of the move: one that has it takes nothing again;
3. the journal drops them, and counts the moves up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from services.registry.store.device_growth import energy_growth, growth
from services.registry.store.kubernetes.documents import packed
from services.registry.store.ledger import (
    COUNTS,
    TOLD_BY_GATEWAYS,
    DeviceTotal,
    UsageQuery,
    UsageRow,
)
from services.registry.store.store import StoreError

_HOUR: Final = 3600
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_MOST_ROWS: Final = 4000
# Fields of totals: principal, model, and four kinds of time, or the energy.
_TIMES: Final = 6
_ENERGIES: Final = 3
# Who has told nothing for so long is forgotten, and if it tells something it counts again.
_TELLERS_SECONDS: Final = 32 * 86_400
_PART_BYTES: Final = 600_000
MOST_MONTH_BYTES: Final = 16 << 20
"""Of all months of one journal, packed."""


Kept = tuple[Any, ...]
"""A row as it is kept: a newer version may have put fields behind those that are known here."""


class NeuronTotals(msgspec.Struct):
    """One life of a neuron.

    Attributes:
        told_at: when its totals were added last, seconds since the epoch.
        times: its totals of time that are believed, as rows of DeviceTotal.
        energies: and of energy, with principal and model.
    """

    told_at: int = 0
    times: list[Kept] = []
    energies: list[Kept] = []


class Move(msgspec.Struct):
    """Rows on their way to the part of a month.

    Attributes:
        part: its number within the month.
        rows: that it takes.
    """

    part: int
    rows: list[Kept]


class Journal(msgspec.Struct):
    """One object's share of what is told.

    Attributes:
        reports: by gateway's process, the number of its last report and when it came.
        sources: by life of a neuron.
        rows: what was used, that is in no month yet.
        moving: by month, what is being moved.
        moves: how many moves are over.
        moved_at: when the last one began, seconds since the epoch.
        months: by month, the bytes of its parts.
        since: what was used before is not told any more.
    """

    reports: dict[str, tuple[int, int]] = {}
    sources: dict[str, NeuronTotals] = {}
    rows: list[Kept] = []
    moving: dict[str, Move] = {}
    moves: int = 0
    moved_at: int = 0
    months: dict[str, list[int]] = {}
    since: int = 0

    def add_report(self, holder: str, number: int, rows: Sequence[UsageRow], *, now: int) -> bool:
        """Adds a gateway's report; False where it was added before."""
        if self.reports.get(holder, (-1, 0))[0] >= number:
            return False
        self.reports[holder] = (number, now)
        self._add(row.told_by_gateways for row in rows)
        return True

    def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], *, most: int, now: int
    ) -> Sequence[DeviceTotal]:
        """Adds by how much a source's totals have grown, and returns that."""
        known = self.sources.get(source, NeuronTotals())
        times = [one[:_TIMES] for one in known.times]
        energies = [one[:_ENERGIES] for one in known.energies]
        grown, newer = growth(times, totals, most)
        more, sums = energy_growth(energies, totals, [*times, *newer])
        if newer or sums:
            times, energies = _latest([*times, *newer]), _latest([*energies, *sums])
            self.sources[source] = NeuronTotals(now, times, energies)
            self._add(_row(hour, one[:2], *one[2:-1]) for one in grown)
            self._add(_row(hour, one[:2], 0, 0, 0, 0, one[2]) for one in more)
        return grown

    def is_due(self, now: int) -> bool:
        """Whether rows should move to their months."""
        lately = now - self.moved_at < _HOUR
        return bool(self.rows) and (not lately or len(self.rows) > _MOST_ROWS)

    def begin_move(self, now: int) -> None:
        """Sets all rows aside, each month's for one of its parts.

        Raises:
            StoreError: the months are as large as they may be.
        """
        if self.moving or not self.rows:
            return
        if sum(map(sum, self.months.values())) > MOST_MONTH_BYTES:
            raise StoreError(
                f"Kubernetes: what was used has {MOST_MONTH_BYTES >> 20} MiB in ConfigMaps, the"
                " most there may be: set registry.usage_days lower, or use PostgreSQL."
            )
        by_month: dict[str, list[Kept]] = {}
        for row in self.rows:
            by_month.setdefault(month_of(row[0]), []).append(row)
        for month, rows in by_month.items():
            parts = self.months.setdefault(month, [])
            size = len(packed(msgspec.json.encode(rows)))
            if not parts or parts[-1] + size > _PART_BYTES:
                parts.append(0)
            self.moving[month] = Move(len(parts) - 1, rows)
        self.rows, self.moved_at = [], now

    def renumber(self, moves: int) -> None:
        """Counts on from a number that a part knows: this journal was lost, or is an old copy."""
        self.moves = max(self.moves, moves)

    def end_move(self, sizes: dict[str, int]) -> None:
        """Drops what was moved.

        Args:
            sizes: by month, the bytes of the part that took it.
        """
        for month, move in self.moving.items():
            self.months[month][move.part] = sizes[month]
        self.moving = {}
        self.moves += 1

    def forget(self, before: int, *, now: int) -> list[tuple[str, int]]:
        """Forgets what was used before, and who has told nothing for long.

        Returns: months that nothing is told of any more, and how many parts they have.
        """
        self.since = max(self.since, before)
        self.rows = [row for row in self.rows if row[0] >= self.since]
        oldest = max(before, now - _TELLERS_SECONDS)
        self.reports = {name: one for name, one in self.reports.items() if one[1] >= oldest}
        self.sources = {name: one for name, one in self.sources.items() if one.told_at >= oldest}
        first = month_of(self.since)
        return [(month, len(parts)) for month, parts in self.months.items() if month < first]

    def _add(self, rows: Iterable[Kept]) -> None:
        self.rows = list(added([*self.rows, *rows]))

    def drop(self, months: Iterable[str]) -> None:
        """Months whose parts are removed."""
        for month in months:
            if month not in self.moving:
                self.months.pop(month, None)


class MonthPart(msgspec.Struct):
    """A part of what was used in one month.

    Attributes:
        moves: the number of the journal's moves when it took the last one.
        rows: in it.
    """

    moves: int = -1
    rows: list[Kept] = []

    def take(self, rows: Sequence[Kept], moves: int) -> bool:
        """Takes what is moved; False where it has taken it already."""
        if self.moves >= moves:
            return False
        self.rows, self.moves = list(added([*self.rows, *rows])), moves
        return True


def month_of(hour: int) -> str:
    """The month of an hour, as names of objects say it."""
    return time.strftime("%Y%m", time.gmtime(min(max(hour, 0), _LAST_SECOND)))


def added(rows: Iterable[Kept]) -> list[UsageRow]:
    """The sums of rows of the same hour, principal and model, in their order.

    A row may lack fields that are newer than it, and have some that are not known here.
    """
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        found = sums.setdefault(row[:3], [0] * len(COUNTS))
        for index, count in enumerate(row[3 : 3 + len(COUNTS)]):
            found[index] += count
    return [UsageRow(*key, *counts) for key, counts in sorted(sums.items())]


def answered(query: UsageQuery, rows: Iterable[UsageRow]) -> list[UsageRow]:
    """The sums that a query asks for; fields that were added over are empty or 0."""
    until = query.until or float("inf")
    chosen = (
        UsageRow(
            row.hour if "hour" in query.by else 0,
            row.principal if "principal" in query.by else "",
            row.model if "model" in query.by else "",
            *row[3:],
        )
        for row in rows
        if query.since <= row.hour < until and query.principal in {None, row.principal}
    )
    return added(chosen)


def _row(hour: int, of: Kept, *figures: int) -> Kept:
    """A row of what neurons tell; gateways tell the counts before it."""
    return (hour, *of, *[0] * len(TOLD_BY_GATEWAYS), *figures)


def _latest(rows: Iterable[Kept]) -> list[Kept]:
    """The last row of each principal and model."""
    return list({row[:2]: row for row in rows}.values())
