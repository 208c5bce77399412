"""After a start: which neurons the registry waits for, and until when it places nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# Neurons seen this long ago are not waited for after a start.
_REMEMBERED_SECONDS: Final = 86_400.0


def neurons_to_wait_for(
    remembered: Mapping[str, str], *, named: Iterable[str], now: float
) -> frozenset[str]:
    """The neurons that held models before this registry started and have not reported yet.

    Args:
        remembered: by name, when each was last admitted (seconds since the epoch) and its address,
            as the store has it; 0 for one that has left on purpose.
        named: those that the settings name.
        now: seconds since the epoch.
    """
    names = set(named)
    for name, value in remembered.items():
        seen = value.split(" ", 1)[0]
        if seen.isdigit() and now - float(seen) < _REMEMBERED_SECONDS:
            names.add(name)
    return frozenset(names)


class Settling:
    """The time after a start in which nothing is placed and nobody is refused.

    It is over as soon as all neurons that are waited for have reported, and one at least; or at its
    end, whoever is missing then. What a neuron holds that is not back is not known: to place a
    model before that may load it a second time.

    Args:
        expected: names of the neurons that are waited for; None: there was no start to settle from.
        ends_at: when it is over in any case; seconds on the monotonic clock.
    """

    def __init__(self, expected: frozenset[str] | None, ends_at: float) -> None:
        self._missing = set(expected or ())
        self.ends_at = ends_at if expected is not None else 0.0

    def is_over(self, now: float) -> bool:
        """True once models may be placed."""
        return now >= self.ends_at

    def heard_of(self, name: str) -> None:
        """Stops waiting for a neuron that has reported or has left on purpose."""
        self._missing.discard(name)
        if not self._missing:
            self.ends_at = 0.0
