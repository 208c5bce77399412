"""Pauses after failed loads: trying at once again would evict others for nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from services.backplane.errors import FleetError
from services.registry.placement import errors

_FIRST_SECONDS: Final = 2.0
_MOST_SECONDS: Final = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float
    error: FleetError


class Cooldowns:
    """One pause per model: 2 seconds, twice as long after each failure, 2 minutes at most.

    A success or a person ends it. A pause that has been over for 2 minutes is forgotten, and the
    next one begins at 2 seconds again.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def begin(self, model: str, error: FleetError, now: float) -> None:
        """A demand's load has failed for good: the next one begins no sooner than after a pause."""
        self._pauses = {m: p for m, p in self._pauses.items() if p.until + _MOST_SECONDS > now}
        old = self._pauses.get(model)
        seconds = min(_MOST_SECONDS, old.seconds * 2) if old else _FIRST_SECONDS
        self._pauses[model] = _Pause(now + seconds, seconds, error)

    def refusal(self, model: str, now: float) -> FleetError | None:
        """The error for those who want the model during its pause; None where there is no pause."""
        pause = self._pauses.get(model)
        if pause is None or pause.until <= now:
            return None
        return errors.cooling_down(pause.error, pause.until - now)

    def refusals(self, now: float) -> Mapping[str, FleetError]:
        """The refusals of all models that are in a cooldown now, by model."""
        found = {model: self.refusal(model, now) for model in self._pauses}
        return {model: error for model, error in found.items() if error is not None}

    def end(self, model: str) -> None:
        """Lets a model be tried again at once."""
        self._pauses.pop(model, None)

    def end_all(self) -> None:
        """Lets all models be tried again at once."""
        self._pauses.clear()
