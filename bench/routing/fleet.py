"""Instances under virtual time: each has places, a reader of prompts, and a cache with a bound."""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable

from bench.routing.traffic import Turn
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.routing.prefix import trail_of

PLACES = 8
READ_TOKENS_PER_SECOND = 5_000.0
WRITE_TOKENS_PER_SECOND = 40.0


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls it in so many seconds."""
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, call))

    def run(self, until: float) -> None:
        """Runs everything that is due before then."""
        while self._due and self._due[0][0] <= until:
            self.now, _, call = heapq.heappop(self._due)
            call()


class PrefixCache:
    """Pieces of prompts, each of use only behind the pieces before it.

    Args:
        tokens: most that it holds, the longest unused going first; None: no bound.
    """

    def __init__(self, tokens: int | None) -> None:
        self._room = tokens
        self._held: OrderedDict[int, int] = OrderedDict()
        self._tokens = 0

    def read(self, segments: tuple[tuple[int, int], ...]) -> int:
        """Takes in a prompt. Returns: how many of its tokens were there already."""
        reused = 0
        for name, tokens in segments:
            if name not in self._held:
                break
            reused += tokens
        # From the end, so that a beginning is never older than what needs it.
        for name, tokens in reversed(segments):
            if name in self._held:
                self._held.move_to_end(name)
            else:
                self._held[name] = tokens
                self._tokens += tokens
        while self._room is not None and self._tokens > self._room:
            self._tokens -= self._held.popitem(last=False)[1]
        return reused

    def __contains__(self, name: int) -> bool:
        return name in self._held


@dataclasses.dataclass(slots=True)
class Instance:
    """One replica.

    Attributes:
        name: its id.
        served: how many requests it was sent.
        work_seconds: what reading and writing took it, as if one after the other.
        reused_tokens: prompt tokens that its cache had.
        waits: seconds from arrival to first token, per request.
    """

    clock: Clock
    name: str
    cache: PrefixCache
    served: int = 0
    work_seconds: float = 0.0
    reused_tokens: int = 0
    waits: list[float] = dataclasses.field(default_factory=list[float])
    _marks: dict[bytes, tuple[int, int]] = dataclasses.field(
        default_factory=dict[bytes, tuple[int, int]]
    )
    _told: dict[bytes, int] = dataclasses.field(default_factory=dict[bytes, int])
    _held_seconds: float = 0.0
    _running: int = 0
    _reads_until: float = 0.0
    _queue: deque[tuple[Turn, float, Callable[[], None]]] = dataclasses.field(
        default_factory=deque[tuple[Turn, float, Callable[[], None]]]
    )

    def serve(self, turn: Turn, done: Callable[[], None]) -> None:
        """Serves a request; `done` is called at its end."""
        self.served += 1
        self._queue.append((turn, self.clock.now, done))
        self._admit()

    def tell(self) -> neuron.CacheChange:
        """What it holds, as far as it has changed since it last told: as a neuron does."""
        self._marks = {d: mark for d, mark in self._marks.items() if mark[0] in self.cache}
        now = {digest: tokens for digest, (_, tokens) in self._marks.items()}
        held = [
            neuron.HeldPrefix(digest=digest, tokens=tokens)
            for digest, tokens in now.items()
            if self._told.get(digest) != tokens
        ]
        dropped = self._told.keys() - now.keys()
        self._told = now
        return neuron.CacheChange(
            instance_id=self.name,
            held=held,
            dropped=dropped,
            seconds_per_token=1 / READ_TOKENS_PER_SECOND,
            seconds_per_request=self._held_seconds / max(1, self.served) / PLACES,
        )

    def _mark(self, turn: Turn) -> None:
        trail = trail_of(turn.request, "m")
        self._marks[trail.head] = turn.segments[0]
        whole = sum(tokens for _, tokens in turn.segments)
        self._marks[trail.turns[-1]] = (turn.segments[-1][0], whole)

    def _admit(self) -> None:
        while self._queue and self._running < PLACES:
            turn, came_at, done = self._queue.popleft()
            self._running += 1
            reused = self.cache.read(turn.segments)
            self._mark(turn)
            self.reused_tokens += reused
            unread = sum(tokens for _, tokens in turn.segments) - reused
            reading = unread / READ_TOKENS_PER_SECOND
            writing = turn.answer_tokens / WRITE_TOKENS_PER_SECOND
            self.work_seconds += reading + writing / PLACES
            # Prompts are read one after the other, answers written side by side.
            self._reads_until = max(self._reads_until, self.clock.now) + reading
            self.waits.append(self._reads_until - came_at)
            ends_in = self._reads_until + writing - self.clock.now
            self._held_seconds += ends_in
            self.clock.after(ends_in, functools.partial(self._end, done))

    def _end(self, done: Callable[[], None]) -> None:
        self._running -= 1
        done()
        self._admit()
