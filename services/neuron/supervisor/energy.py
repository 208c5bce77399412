"""What of the devices' energy principals have used of each model, by their part of the time."""

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


# Whose work it was, and on which model.
Share = tuple[str, str]


class DeviceEnergy:
    """Adds up joules by principal and model.

    Time that a device has worked for somebody counts with the mean power that the device had: since
    the last reading, or as far back as the time that was charged reaches, since a long step is told
    at its end. What a device used is given away once, however many workers it had, and what it used
    while nobody had work for it is nobody's.

    Args:
        clock: seconds; never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[str, deque[tuple[float, float]]] = {}
        self._charged: dict[str, dict[Share, int]] = {}
        self._joules: dict[str, float] = {}
        self._watts: dict[str, float] = {}

    @property
    def joules(self) -> Mapping[str, float]:
        """By model; none of models that no device which tells its energy has worked for."""
        return dict(self._joules)

    def watts(self, device_ids: Sequence[str]) -> float | None:
        """The power of devices together: of each the mean of when it last worked for anybody.

        Of one that has not worked yet, the mean between its last readings. None where one of them
        tells no energy, or has not been read twice.
        """
        found = [self._watts.get(device_id) for device_id in device_ids]
        return sum(one for one in found if one is not None) if found and None not in found else None

    def charge(
        self, principal: str, name: str, device_ids: Sequence[str], nanoseconds: int
    ) -> None:
        """Records that devices worked together for requests of a principal, for a time."""
        for device_id in device_ids:
            if device_id in self._readings and nanoseconds:
                charged = self._charged.setdefault(device_id, {})
                charged[principal, name] = charged.get((principal, name), 0) + nanoseconds

    def note_readings(self, devices: Iterable[model.Device]) -> Mapping[Share, float]:
        """Takes in what the devices have used by now, and divides it.

        Returns: joules that were given to whom.
        """
        now = self._clock()
        telling: set[str] = set()
        given: dict[Share, float] = {}
        for device in devices:
            if device.HasField("energy_joules"):
                telling.add(device.device_id)
                self._note(device.device_id, now, device.energy_joules, given)
        for device_id in self._readings.keys() - telling:
            del self._readings[device_id]
            self._charged.pop(device_id, None)
            self._watts.pop(device_id, None)
        for (_, name), joules in given.items():
            self._joules[name] = self._joules.get(name, 0.0) + joules
        return given

    def _note(self, device_id: str, now: float, joules: float, given: dict[Share, float]) -> None:
        readings = self._readings.get(device_id)
        if readings is None or joules < readings[-1][1]:  # new, or the driver was loaded anew
            self._readings[device_id] = deque([(now, joules)], maxlen=_MOST_READINGS)
            self._charged.pop(device_id, None)
            return
        passed = now - readings[-1][0]
        if passed < _LEAST_SECONDS:
            return
        charged = self._charged.pop(device_id, None)
        if charged:
            watts = _power(sum(charged.values()) * _NANOSECOND, readings, (now, joules))
            self._watts[device_id] = watts
            for share, nanoseconds in charged.items():
                used = watts * nanoseconds * _NANOSECOND
                given[share] = given.get(share, 0.0) + used
            readings.clear()
        else:
            self._watts.setdefault(device_id, (joules - readings[-1][1]) / passed)
        readings.append((now, joules))


def _power(
    worked: float, readings: Sequence[tuple[float, float]], newest: tuple[float, float]
) -> float:
    """Mean watts of a device while it worked.

    Args:
        worked: seconds.
        readings: what was given to nobody yet: times and joules.
        newest: the reading of now.
    """
    now, joules = newest
    as_long_ago = (one for one in reversed(readings) if now - one[0] >= worked)
    began, before = next(as_long_ago, readings[0])
    return (joules - before) / max(now - began, worked)
