"""What of the devices' energy the requests of each model have used, by their part of the time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model

_NANOSECOND: Final = 1e-9
# Readings behind the last charge that are kept: two minutes. Of a step that takes longer, what the
# device used before them is nobody's.
_MOST_READINGS: Final = 64
# Two readings that are closer together say little of power.
_LEAST_SECONDS: Final = 0.5


class ModelEnergy:
    """Adds up joules by model.

    Time that a device has worked for a model counts with the mean power that the device had: since
    the last reading, or as far back as the time that was charged reaches, since a long step is told
    at its end. What a device used is given away once, however many workers it had, and what it used
    while nobody had work for it is nobody's.

    Args:
        clock: seconds; never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[str, deque[tuple[float, float]]] = {}
        self._charged: dict[str, dict[str, int]] = {}
        self._joules: dict[str, float] = {}

    @property
    def joules(self) -> Mapping[str, float]:
        """By model; none of models that no device which tells its energy has worked for."""
        return dict(self._joules)

    def charge(self, name: str, device_ids: Sequence[str], nanoseconds: int) -> None:
        """Records that devices worked together for requests of a model, for a time."""
        for device_id in device_ids:
            if device_id in self._readings and nanoseconds:
                charged = self._charged.setdefault(device_id, {})
                charged[name] = charged.get(name, 0) + nanoseconds

    def note_readings(self, devices: Iterable[model.Device]) -> None:
        """Takes in what the devices have used by now, and divides it."""
        now = self._clock()
        telling: set[str] = set()
        for device in devices:
            if device.HasField("energy_joules"):
                telling.add(device.device_id)
                self._note(device.device_id, now, device.energy_joules)
        for device_id in self._readings.keys() - telling:
            del self._readings[device_id]
            self._charged.pop(device_id, None)

    def _note(self, device_id: str, now: float, joules: float) -> None:
        readings = self._readings.get(device_id)
        if readings is None or joules < readings[-1][1]:  # new, or the driver was loaded anew
            self._readings[device_id] = deque([(now, joules)], maxlen=_MOST_READINGS)
            self._charged.pop(device_id, None)
            return
        if now - readings[-1][0] < _LEAST_SECONDS:
            return
        charged = self._charged.pop(device_id, None)
        if charged:
            self._divide(charged, readings, (now, joules))
            readings.clear()
        readings.append((now, joules))

    def _divide(
        self,
        charged: Mapping[str, int],
        readings: Sequence[tuple[float, float]],
        newest: tuple[float, float],
    ) -> None:
        """Gives models their parts of what a device used while it worked.

        Args:
            charged: nanoseconds, by model.
            readings: what was given to nobody yet: times and joules.
            newest: the reading of now.
        """
        now, joules = newest
        worked = sum(charged.values()) * _NANOSECOND
        as_long_ago = (one for one in reversed(readings) if now - one[0] >= worked)
        began, before = next(as_long_ago, readings[0])
        watts = (joules - before) / max(now - began, worked)
        for name, nanoseconds in charged.items():
            used = watts * nanoseconds * _NANOSECOND
            self._joules[name] = self._joules.get(name, 0.0) + used
