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
_SET_SECONDS: Final = 60.0
"""By more than this the clock is not slewed but set."""
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

    Minutes are those of this process, by a clock that nobody sets; only what the registry tells has
    times of day.

    Args:
        clock: seconds since 1970; may be set, to other years too.
        ticks: seconds; never goes back.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._ticks = ticks
        self._began_ticks = ticks()
        self._recalled_as: float | None = None
        self._minutes: deque[_Minute] = deque(maxlen=max(WINDOWS.values()))
        self._earlier: Sequence[_Hour] = ()

    @property
    def first_hour(self) -> int:
        """The first hour of which `recall` should be told, seconds since 1970."""
        day = max(WINDOWS.values()) * _MINUTE
        return max(0, int(self._began_at - day) // _HOUR * _HOUR)

    @property
    def wants_recall(self) -> bool:
        """Whether it should be told what was used before: also once the clock was set."""
        before = self._recalled_as
        return before is None or abs(self._began_at - before) > _SET_SECONDS

    @property
    def _began_at(self) -> float:
        """When this process began, by what the clock says now."""
        return self._clock() - (self._ticks() - self._began_ticks)

    def recall(self, told: Iterable[pb.UsageRow], own: Iterable[pb.UsageRow] = ()) -> None:
        """Takes in what was used before this process began.

        Args:
            told: by principal, model and hour, from `first_hour` until now.
            own: what of it this process has told the registry itself: that is counted here.
        """
        began_at, first_hour = self._began_at, self.first_hour
        reported: dict[tuple[int, str, str], Tally] = {}
        for row in own:
            whose = (row.hour_unix_seconds, row.principal, row.model)
            reported.setdefault(whose, Tally()).add(_told(row))
        hours: dict[int, dict[tuple[str, str, str], Tally]] = {}
        for row in told:
            starts_at = row.hour_unix_seconds
            if not (first_hour <= starts_at < began_at and row.requests):
                continue
            tally = _told(row)
            mine = reported.get((starts_at, row.principal, row.model))
            if mine is not None:
                tally = _combined(tally, mine, lambda all_of_it, part: max(0, all_of_it - part))
            if not tally.requests:
                continue
            rows = hours.setdefault(starts_at, {})
            key = (row.principal, row.model, _EARLIER) if len(rows) < _MOST_ROWS else _OTHERS
            rows.setdefault(key, Tally()).add(tally)
        self._earlier = [
            _Hour(starts_at, min(starts_at + _HOUR, began_at), rows)
            for starts_at, rows in hours.items()
        ]
        self._recalled_as = began_at

    def note(self, outcome: RequestOutcome) -> None:
        """Counts requests that came out alike."""
        number = self._minute
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(number, {}))
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

    @property
    def _minute(self) -> int:
        """The number of the minute under way since this process began."""
        return int(self._ticks() - self._began_ticks) // _MINUTE

    def table(self, by: str, window: str) -> dict[str, Any]:
        """Rows by use, the heaviest first.

        Args:
            by: one of KEYS.
            window: one of WINDOWS; the minute under way counts as one. An earlier hour of which a
                part lies in it counts by that part.
        """
        began_at, first = self._began_at, self._minute - WINDOWS[window] + 1
        index = KEYS.index(by)
        total, rows = Tally(), dict[str, Tally]()
        for minute in self._minutes:
            if minute.number >= first:
                for key, tally in minute.rows.items():
                    rows.setdefault(key[index], Tally()).add(tally)
                    total.add(tally)
        since = began_at + first * _MINUTE
        for hour in self._earlier:
            if (
                hour.ends_at > began_at + _SET_SECONDS
            ):  # the clock was set since: they are asked for again
                continue
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
            "since": max(began_at if self.wants_recall else self.first_hour, since),
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
