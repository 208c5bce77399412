"""Who has used how many tokens of what, minute by minute, for a day."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from services.backplane.errors import Reason
from services.backplane.security.principals import OTHERS
from services.gateway.telemetry.outcome import RequestOutcome

WINDOWS: Final = {"15m": 15, "1h": 60, "6h": 360, "24h": 1440}
KEYS: Final = ("key", "model", "neuron")
# Rows of one minute; what is beyond them is added up in one.
_MOST_ROWS: Final = 256
_OTHERS: Final = (OTHERS, OTHERS, OTHERS)
_MINUTE: Final = 60


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


class Usage:
    """Counts requests and tokens by key, model and neuron.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began_at = clock()
        self._minutes: deque[_Minute] = deque(maxlen=max(WINDOWS.values()))

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
            window: one of WINDOWS; the minute under way counts as one.
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
        heaviest = sorted(rows.items(), key=lambda row: (-_weight(row[1]), row[0]))
        return {
            "by": by,
            "window": window,
            "since": max(self._began_at, first * _MINUTE),
            "rows": [{"name": name, **msgspec.structs.asdict(one)} for name, one in heaviest],
            "total": msgspec.structs.asdict(total),
        }


def _weight(tally: Tally) -> int:
    return tally.prompt_tokens + tally.completion_tokens + tally.requests
