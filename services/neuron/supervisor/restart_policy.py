"""How a worker's deaths are judged: how long to pause, and when to give up. Pure."""

from __future__ import annotations

import collections
import dataclasses
from typing import Final

from services.backplane import backoff

_LONGEST_PAUSE_SECONDS: Final = 60.0
# So many tokens further on, a request is past what a worker has died of with it inside.
_PAST_TOKENS: Final = 32
_MOST_DEATHS_IN_COMPANY: Final = 2
_MOST_DEATHS_OF_A_LOAD: Final = 2
_LOAD_DEATHS_SECONDS: Final = 600.0
_MOST_LOADS_KNOWN: Final = 256
_MOST_DEATHS_OF_A_REQUEST: Final = 5


@dataclasses.dataclass(slots=True)
class RestartPolicy:
    """When the worker of one device set is started again after its process died.

    1. A death counts for `within_seconds`.
    2. The pause after the first death that counts is `first_pause_seconds`; each further one
       doubles it, up to a minute.
    3. With `limit` deaths that count, no process is started any more (quarantine). Deaths that one
       caller can explain, because it had a request in each of them, count as one together: nobody
       can take a device from the others by a request that its engine does not survive. The caller
       who explains most is the one.

    Attributes:
        limit: deaths within `within_seconds` that end restarts.
        within_seconds: how long a death counts.
        first_pause_seconds: pause after the first death.
        total: deaths since the daemon started, those that no longer count included.
    """

    limit: int
    within_seconds: float
    first_pause_seconds: float
    total: int = 0
    _deaths: list[tuple[float, frozenset[str]]] = dataclasses.field(
        default_factory=list[tuple[float, frozenset[str]]]
    )

    def note(self, now: float, callers: frozenset[str] = frozenset()) -> None:
        """Records a death.

        Args:
            now: seconds on a monotonic clock.
            callers: who had a request in the process.
        """
        self.total += 1
        self._deaths = [death for death in self._deaths if now - death[0] < self.within_seconds]
        self._deaths.append((now, callers))

    @property
    def is_too_many(self) -> bool:
        """True once no process may be started any more."""
        shares = collections.Counter(who for _, callers in self._deaths for who in callers)
        explained = max(shares.values(), default=1) - 1
        return len(self._deaths) - explained >= self.limit

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next start."""
        before = max(0, len(self._deaths) - 1)
        return backoff.pause(before, first=self.first_pause_seconds, cap=_LONGEST_PAUSE_SECONDS)


@dataclasses.dataclass(slots=True)
class RequestDeaths:
    """The workers that died with one request inside, of which it may be the cause.

    1. It goes on in another worker after the first death, but not after a second one with nothing
       else inside: what two died of would be the end of a third.
    2. Where others were inside too, each of them is suspected, and may go on once more by itself.
    3. What a request is the cause of comes again at the same place. Where it had gone on by
       `_PAST_TOKENS`, the deaths before count no more.
    4. After `_MOST_DEATHS_OF_A_REQUEST` it ends in any case.
    """

    _made: int = 0
    _of_one_place: int = 0
    _all: int = 0

    @property
    def is_suspect(self) -> bool:
        """Two workers died with it inside, at one place."""
        return self._of_one_place > 1

    def is_past(self, made: int) -> bool:
        """True once it is well past the token count at which its last worker died."""
        return made - self._made >= _PAST_TOKENS

    def acquit(self) -> None:
        """It ran by itself for long and no worker died: all but one of its deaths do not count."""
        self._of_one_place = min(1, self._of_one_place)

    def note(self, made: int, *, is_alone: bool) -> bool:
        """Records a death. Returns: whether the request may go on.

        Args:
            made: tokens of the answer until then.
            is_alone: neither another request nor a load was in the process.
        """
        self._of_one_place = 1 if self.is_past(made) else self._of_one_place + 1
        self._all += 1
        self._made = made
        most = 1 if is_alone else _MOST_DEATHS_IN_COMPANY
        return self._of_one_place <= most and self._all < _MOST_DEATHS_OF_A_REQUEST


@dataclasses.dataclass(slots=True)
class LoadDeaths:
    """Weights that workers died of while they were being loaded.

    1. After `_MOST_DEATHS_OF_A_LOAD` deaths they are not loaded any more: the models beside them
       would be loaded again and again, until the device is quarantined.
    2. A death counts for `_LOAD_DEATHS_SECONDS`, and no longer than until the weights were loaded.

    Bound: `_MOST_LOADS_KNOWN` weights, those longest ago forgotten first.
    """

    _deaths: dict[str, list[float]] = dataclasses.field(default_factory=dict[str, list[float]])

    def note(self, weights: str, now: float) -> None:
        """A worker died while it loaded these weights, at a time of a monotonic clock."""
        counted = [*self._counted(weights, now), now]
        self._deaths.pop(weights, None)
        self._deaths[weights] = counted
        if len(self._deaths) > _MOST_LOADS_KNOWN:
            del self._deaths[next(iter(self._deaths))]

    def forget(self, weights: str) -> None:
        """They were loaded."""
        self._deaths.pop(weights, None)

    def are_too_many(self, weights: str, now: float) -> bool:
        """They are not to be loaded now."""
        return len(self._counted(weights, now)) >= _MOST_DEATHS_OF_A_LOAD

    def _counted(self, weights: str, now: float) -> list[float]:
        return [at for at in self._deaths.get(weights, ()) if now - at < _LOAD_DEATHS_SECONDS]


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What is known of a running worker at one moment.

    Attributes:
        silent_seconds: time since its last frame.
        resident_bytes: its resident memory.
        is_loading: a load is under way.
        load_silent_seconds: time since a load last came forward.
    """

    silent_seconds: float
    resident_bytes: int
    is_loading: bool = False
    load_silent_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class HealthLimits:
    """What a running worker may do at most; see `settings.WorkerLimits`."""

    stall_seconds: float
    load_stall_seconds: float
    memory_bytes: int

    def complaint(self, health: WorkerHealth) -> str | None:
        """Why the worker has to be ended, in words; None while it is well.

        1. Its loop is silent for longer than `stall_seconds`, or `load_stall_seconds` while it
           loads: one call of the library may keep the loop that long.
        2. A load makes no progress for longer than `load_stall_seconds`.
        3. It holds more than `memory_bytes`.
        """
        patience = self.load_stall_seconds if health.is_loading else self.stall_seconds
        if health.silent_seconds > patience:
            return f"the worker's loop stood still for {health.silent_seconds:.0f} s"
        if health.is_loading and health.load_silent_seconds > self.load_stall_seconds:
            return f"the load made no progress for {health.load_silent_seconds:.0f} s"
        if health.resident_bytes > self.memory_bytes:
            held, most = health.resident_bytes >> 20, self.memory_bytes >> 20
            return f"the worker held {held} MiB; {most} MiB are allowed"
        return None
