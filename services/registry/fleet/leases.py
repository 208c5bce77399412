"""How long a silent neuron is a member. The caller brings the clock, in monotonic seconds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Lapses:
    """The members whose lease has run out.

    Attributes:
        lost: no report within the lease; they get no work.
        forgotten: lost for so long that they are taken off the list.
    """

    lost: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


class Leases:
    """The lease of every member: the time within which it has to report again.

    A lapse happens in two steps, so that one missed beat removes nothing: first the member is
    lost, and `forget_seconds` later it is forgotten. Both tables are ordered by time, because
    every lease is equally long; a look at what is due costs what is due.
    """

    def __init__(self, *, lease_seconds: float, forget_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self.forget_seconds = forget_seconds
        self._held: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    def renew(self, name: str, now: float) -> None:
        """Grants a member a whole lease from now on."""
        self._lost.pop(name, None)
        self._held.pop(name, None)
        self._held[name] = now + self.lease_seconds

    def lose(self, name: str, now: float) -> None:
        """Ends a lease early: the stream broke. Losing twice does not delay the forgetting."""
        self._held.pop(name, None)
        self._lost.setdefault(name, now + self.forget_seconds)

    def end(self, name: str) -> None:
        """Forgets a member that left on purpose."""
        self._held.pop(name, None)
        self._lost.pop(name, None)

    def lapse(self, now: float) -> Lapses:
        """Takes out the members whose time is up, and says which they are."""
        lost = _due(self._held, now)
        for name in lost:
            del self._held[name]
            self._lost[name] = now + self.forget_seconds
        forgotten = _due(self._lost, now)
        for name in forgotten:
            del self._lost[name]
        return Lapses(lost, forgotten)

    def next_due(self) -> float | None:
        """When the next lease runs out or the next lost member is forgotten; None for never."""
        firsts = [next(iter(table.values())) for table in (self._held, self._lost) if table]
        return min(firsts, default=None)


def _due(table: dict[str, float], now: float) -> tuple[str, ...]:
    due: list[str] = []
    for name, at in table.items():
        if at > now:
            break
        due.append(name)
    return tuple(due)
