"""How fast it goes: tokens per second while they are made, first tokens, and cached shares."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from services.gateway.api.request import RequestRecord
from services.gateway.telemetry.outcome import RequestOutcome

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
        self._open = self._streams = 0
        self._ticks = 0

    def ended(self, record: RequestRecord) -> None:
        """Takes back what was counted of a request while it ran: `counted` has it once more."""
        key = id(record)
        told = self._counted.pop(key, None)
        if told is None:
            return
        is_admitted = key in self._admitted
        self._admitted.discard(key)
        started = record.sinks[0].started_event if is_admitted else None
        for pace in self._paces(_instance_of(record)):
            pace.this_second -= min(told, _tokens_so_far(record))
            if started is not None:
                pace.prompt -= started.prompt_tokens
                pace.cached -= started.cached_prompt_tokens

    def counted(self, outcome: RequestOutcome) -> None:
        """Counts requests that have ended."""
        tokens = outcome.completion_tokens + outcome.broken_completion_tokens
        if tokens or outcome.admitted_prompt_tokens:
            for pace in self._paces(outcome.instance_id):
                pace.this_second += tokens
                pace.prompt += outcome.admitted_prompt_tokens
                pace.cached += outcome.admitted_cached_tokens
        now = self._clock()
        self._first_tokens.extend([(now, one) for one in outcome.first_token_seconds])

    def tick(self) -> None:
        """Takes in the second that has passed."""
        self._open = self._streams = 0
        known: set[int] = set()
        for record in self._running():
            self._open += 1
            self._streams += record.stream
            if record.sinks:
                key, tokens = id(record), _tokens_so_far(record)
                known.add(key)
                more = tokens - self._counted.get(key, 0)
                self._count(record, more, with_prompt=key not in self._admitted)
                self._counted[key] = tokens
                if record.sinks[0].started_event is not None:
                    self._admitted.add(key)
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
            "streams_open": self._streams,
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
        """The last 15 minutes: time, tokens per second, median time to the first token in ms."""
        return list(self._history)

    def _count(self, record: RequestRecord, more: int, *, with_prompt: bool) -> None:
        """Counts more tokens of a request, and those of its prompt once the neuron tells them."""
        started = record.sinks[0].started_event if with_prompt else None
        for one in self._paces(_instance_of(record)):
            if more > 0:
                one.this_second += more
            if started is not None:
                one.prompt += started.prompt_tokens
                one.cached += started.cached_prompt_tokens

    def _paces(self, instance_id: str) -> Sequence[_Pace]:
        """Where something that ran there is counted; empty: nowhere yet."""
        if not instance_id:
            return (self._all,)
        pace = self._instances.get(instance_id)
        if pace is None:
            pace = self._instances[instance_id] = _new_pace()
        return (self._all, pace)

    def _percentile(self, share: float) -> float | None:
        """Of the times to the first token, milliseconds; None where there were none lately."""
        oldest = self._clock() - _FIRST_TOKEN_SECONDS
        found = sorted(seconds for at, seconds in self._first_tokens if at >= oldest)
        if not found:
            return None
        return round(found[min(len(found) - 1, int(share * len(found)))] * 1000, 1)


def _tokens_so_far(record: RequestRecord) -> int:
    return sum(sink.tokens_so_far for sink in record.sinks)


def _instance_of(record: RequestRecord) -> str:
    """Where it runs or ran last; empty for nowhere."""
    served = record.served_by.last
    return "" if served is None else served.instance_id
