"""Who has used how many tokens of what, minute by minute, for a day.

What was used before this process began is the registry's, by hour: of all gateways, and without the
neurons that ran it and how many requests failed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.errors import Reason
from services.backplane.security.principals import OTHERS
from services.gateway.telemetry.outcome import RequestOutcome

WINDOWS: Final = {"15m": 15, "1h": 60, "6h": 360, "24h": 1440}
KEYS: Final = ("key", "model", "neuron")
# Rows of one minute; what is beyond them is added up in one.
_MOST_ROWS: Final = 256
_OTHERS: Final = (OTHERS, OTHERS, OTHERS)
_MINUTE: Final = 60
_HOUR: Final = 3600
_EARLIER: Final = "(earlier)"
"""Stands in for the neurons of what was used before this process began."""


class Tally(msgspec.Struct):
    """What is counted of some requests."""

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, other: Tally) -> None:
        """Adds another."""
        self.requests += other.requests
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        self.reasoning_tokens += other.reasoning_tokens


class _Minute(msgspec.Struct):
    number: int
    rows: dict[tuple[str, str, str], Tally]


class _Hour(NamedTuple):
    """What the registry knows of an hour, or of a part of one, before this process began."""

    starts_at: float
    ends_at: float
    rows: Mapping[tuple[str, str, str], Tally]


class Usage:
    """Counts requests and tokens by key, model and neuron.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began_at = clock()
        self._known_since = self._began_at
        self._minutes: deque[_Minute] = deque(maxlen=max(WINDOWS.values()))
        self._earlier: Sequence[_Hour] = ()

    @property
    def first_hour(self) -> int:
        """The first hour of which `recall` should be told, seconds since 1970."""
        day = max(WINDOWS.values()) * _MINUTE
        return int(self._began_at - day) // _HOUR * _HOUR

    def recall(self, told: Iterable[pb.UsageRow]) -> None:
        """Takes in what was used before this process began.

        Args:
            told: by principal, model and hour, from `first_hour` until now.
        """
        hours: dict[int, dict[tuple[str, str, str], Tally]] = {}
        begun = int(self._began_at) // _HOUR * _HOUR
        for row in told:
            starts_at = row.hour_unix_seconds
            if self.first_hour <= starts_at < self._began_at and row.requests:
                tally = self._of_others(row) if starts_at == begun else _told(row)
                rows = hours.setdefault(starts_at, {})
                key = (row.principal, row.model, _EARLIER) if len(rows) < _MOST_ROWS else _OTHERS
                rows.setdefault(key, Tally()).add(tally)
        self._earlier = [
            _Hour(starts_at, min(starts_at + _HOUR, self._began_at), rows)
            for starts_at, rows in hours.items()
        ]
        self._known_since = min(self._known_since, self.first_hour)

    def _of_others(self, row: pb.UsageRow) -> Tally:
        """What was used in the hour in which this process began, without what it has counted."""
        own = Tally()
        for minute in self._minutes:
            if minute.number * _MINUTE < row.hour_unix_seconds + _HOUR:
                for (principal, model, _), tally in minute.rows.items():
                    if (principal, model) == (row.principal, row.model):
                        own.add(tally)
        return _combined(_told(row), own, lambda told, counted: max(0, told - counted))

    def note(self, outcome: RequestOutcome) -> None:
        """Counts requests that came out alike."""
        number = self._clock() // _MINUTE
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(int(number), {}))
        rows = self._minutes[-1].rows
        key = (outcome.principal, outcome.model, outcome.neuron)
        tally = rows.get(key)
        if tally is None:
            if len(rows) >= _MOST_ROWS:
                key = _OTHERS
            tally = rows.setdefault(key, Tally())
        tally.requests += outcome.requests
        if outcome.reason is Reason.CANCELLED:
            tally.cancelled += outcome.requests
        elif outcome.reason is not None:
            tally.failed += outcome.requests
        tally.prompt_tokens += outcome.prompt_tokens
        tally.cached_tokens += outcome.cached_tokens
        tally.completion_tokens += outcome.completion_tokens
        tally.reasoning_tokens += outcome.reasoning_tokens

    def table(self, by: str, window: str) -> dict[str, Any]:
        """Rows by use, the heaviest first.

        Args:
            by: one of KEYS.
            window: one of WINDOWS; the minute under way counts as one. An earlier hour of which a
                part lies in it counts by that part.
        """
        now = self._clock()
        first = int(now) // _MINUTE - WINDOWS[window] + 1
        index = KEYS.index(by)
        total, rows = Tally(), dict[str, Tally]()
        for minute in self._minutes:
            if minute.number >= first:
                for key, tally in minute.rows.items():
                    rows.setdefault(key[index], Tally()).add(tally)
                    total.add(tally)
        since = first * _MINUTE
        for hour in self._earlier:
            share = (hour.ends_at - max(hour.starts_at, since)) / (hour.ends_at - hour.starts_at)
            if share > 0:
                for key, told in hour.rows.items():
                    tally = _part(told, share)
                    rows.setdefault(key[index], Tally()).add(tally)
                    total.add(tally)
        heaviest = sorted(rows.items(), key=lambda row: (-_weight(row[1]), row[0]))
        return {
            "by": by,
            "window": window,
            "since": max(self._known_since, since),
            "rows": [{"name": name, **msgspec.structs.asdict(one)} for name, one in heaviest],
            "total": msgspec.structs.asdict(total),
        }


def _told(row: pb.UsageRow) -> Tally:
    return Tally(
        **{name: getattr(row, name) for name in Tally.__struct_fields__ if hasattr(row, name)}
    )


def _combined(one: Tally, other: Tally, combine: Callable[[int, int], int]) -> Tally:
    return Tally(*map(combine, msgspec.structs.astuple(one), msgspec.structs.astuple(other)))


def _part(whole: Tally, share: float) -> Tally:
    return Tally(*(round(one * share) for one in msgspec.structs.astuple(whole)))


def _weight(tally: Tally) -> int:
    return tally.prompt_tokens + tally.completion_tokens + tally.requests
