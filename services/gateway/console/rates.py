"""How fast it goes: tokens per second while they are made, first tokens, and cached shares."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from services.gateway.api.access_log import RequestRecord
from services.gateway.telemetry.request_log import RequestLine

# Of the last seconds in which a rate is told: an engine's steps come in bursts.
_SMOOTH_SECONDS: Final = 3
# A share is told of the last minutes: what is older than this counts less than half.
_HALF_LIFE_SECONDS: Final = 120.0
_HISTORY_SECONDS: Final = 15 * 60
_HISTORY_STEP: Final = 5
# First tokens of which the percentiles are told.
_MOST_FIRST_TOKENS: Final = 1000
_FIRST_TOKEN_SECONDS: Final = 300.0
_FORGOTTEN_BELOW: Final = 1.0  # tokens


class _Pace(msgspec.Struct):
    """One instance, or all: tokens of the last seconds, and of prompts."""

    seconds: deque[int]
    this_second: int = 0
    prompt: float = 0.0
    cached: float = 0.0

    def tokens_per_second(self) -> float:
        return round(sum(self.seconds) / _SMOOTH_SECONDS, 1)

    def cached_share(self) -> float | None:
        return round(self.cached / self.prompt, 3) if self.prompt >= 1 else None


def _new_pace() -> _Pace:
    return _Pace(deque(maxlen=_SMOOTH_SECONDS))


class Rates:
    """Counts the tokens of running requests once a second, and those of ended ones at their end.

    Args:
        running: the records of all requests under way.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[RequestRecord]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = running
        self._clock = clock
        self._counted: dict[int, int] = {}
        self._admitted: set[int] = set()
        self._instances: dict[str, _Pace] = {}
        self._all = _new_pace()
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=_MOST_FIRST_TOKENS)
        self._history: deque[tuple[int, float, float | None]] = deque(
            maxlen=_HISTORY_SECONDS // _HISTORY_STEP
        )
        self._open = 0
        self._ticks = 0

    def ended(self, record: RequestRecord, line: RequestLine) -> None:
        """Counts what is left of a request that has ended."""
        if not record.sinks:
            return
        if isinstance(line.completion_tokens, int):
            tokens = line.completion_tokens
        else:
            tokens = sum(sink.tokens_so_far for sink in record.sinks)
        self._count(record, tokens)
        self._admit(record)
        self._counted.pop(id(record), None)
        self._admitted.discard(id(record))
        if isinstance(line.first_token_ms, float):
            self._first_tokens.append((self._clock(), line.first_token_ms))

    def tick(self) -> None:
        """Takes in the second that has passed."""
        self._open = 0
        known: set[int] = set()
        for record in self._running():
            self._open += 1
            if record.sinks:
                known.add(id(record))
                self._count(record, sum(sink.tokens_so_far for sink in record.sinks))
                self._admit(record)
        if len(self._counted) > len(known):  # a record that ended unheard is forgotten
            self._counted = {k: v for k, v in self._counted.items() if k in known}
            self._admitted &= known
        for pace in (self._all, *self._instances.values()):
            pace.seconds.append(pace.this_second)
            pace.this_second = 0
            pace.prompt *= 0.5 ** (1 / _HALF_LIFE_SECONDS)
            pace.cached *= 0.5 ** (1 / _HALF_LIFE_SECONDS)
        self._instances = {
            name: pace
            for name, pace in self._instances.items()
            if pace.prompt >= _FORGOTTEN_BELOW or any(pace.seconds)
        }
        self._ticks += 1
        if self._ticks % _HISTORY_STEP == 0:
            rate = self._all.tokens_per_second()
            self._history.append((int(time.time()), rate, self._percentile(0.5)))

    def told(self) -> dict[str, Any]:
        """The rates of now, in tokens per second, milliseconds and shares of one."""
        return {
            "tokens_per_second": self._all.tokens_per_second(),
            "cached_share": self._all.cached_share(),
            "requests_open": self._open,
            "first_token_ms": {"p50": self._percentile(0.5), "p95": self._percentile(0.95)},
            "instances": {
                name: {
                    "tokens_per_second": pace.tokens_per_second(),
                    "cached_share": pace.cached_share(),
                }
                for name, pace in self._instances.items()
            },
        }

    def history(self) -> list[tuple[int, float, float | None]]:
        """Of the last quarter of an hour: time, tokens per second, median first token in ms."""
        return list(self._history)

    def _pace(self, record: RequestRecord) -> _Pace | None:
        served = record.served_by.last
        if served is None:
            return None
        pace = self._instances.get(served.instance_id)
        if pace is None:  # one is dear to make, and this is asked for every request
            pace = self._instances[served.instance_id] = _new_pace()
        return pace

    def _count(self, record: RequestRecord, tokens: int) -> None:
        more = tokens - self._counted.get(id(record), 0)
        self._counted[id(record)] = tokens
        if more > 0:
            self._all.this_second += more
            pace = self._pace(record)
            if pace is not None:
                pace.this_second += more

    def _admit(self, record: RequestRecord) -> None:
        """Counts the prompt of a request once, when its neuron has told how long it is."""
        started = record.sinks[0].started_event if record.sinks else None
        if started is None or id(record) in self._admitted:
            return
        self._admitted.add(id(record))
        for pace in (self._all, self._pace(record)):
            if pace is not None:
                pace.prompt += started.prompt_tokens
                pace.cached += started.cached_prompt_tokens

    def _percentile(self, share: float) -> float | None:
        oldest = self._clock() - _FIRST_TOKEN_SECONDS
        found = sorted(ms for at, ms in self._first_tokens if at >= oldest)
        return found[min(len(found) - 1, int(share * len(found)))] if found else None
