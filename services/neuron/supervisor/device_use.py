"""Totals of device time and energy by principal and model since this neuron started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.security.principals import OTHERS
from services.neuron.engine_api.device_time import Charge
from services.neuron.supervisor.energy import DeviceEnergy, Share

_MOST_ROWS: Final = 4096
"""What is beyond them is added up for all other principals together."""
_MICROSECOND: Final = 1000
_MILLI: Final = 1000


class _Row:
    """Nanoseconds, and joules, of one principal on one model; `version` is of its last change."""

    __slots__ = ("decode", "joules", "load", "prefill", "unload", "version")

    def __init__(self) -> None:
        self.joules = 0.0
        self.prefill = self.decode = self.load = self.unload = self.version = 0


class DeviceUse:
    """Adds up the device time that workers charge.

    Attributes:
        version: grows with every change.
        energy: what of the devices' energy requests have used.
    """

    def __init__(self) -> None:
        # in order of their last change
        self._rows: dict[tuple[str, str], _Row] = {}
        self._busy_ns = 0
        self.version = 0
        self.energy = DeviceEnergy()

    @property
    def busy_microseconds(self) -> int:
        """Time that devices were busy, over all devices; measured apart from what is charged."""
        return self._busy_ns // _MICROSECOND

    def add(
        self,
        charges: Iterable[Charge],
        *,
        busy_ns: int,
        devices: int,
        device_ids: Sequence[str] = (),
    ) -> None:
        """Adds a worker's charges.

        Args:
            charges: for one device.
            busy_ns: likewise.
            devices: how many work together there.
            device_ids: all that the worker owns, also where they take turns.
        """
        self.version += 1
        self._busy_ns += busy_ns * devices
        for charge in charges:
            nanoseconds = charge.prefill_ns + charge.decode_ns
            self.energy.charge(charge.principal, charge.model, device_ids, nanoseconds)
            row = self._changed((charge.principal, charge.model))
            row.prefill += charge.prefill_ns * devices
            row.decode += charge.decode_ns * devices
            row.load += charge.load_ns * devices
            row.unload += charge.unload_ns * devices

    def note_readings(self, devices: Iterable[model.Device]) -> None:
        """Takes in what the devices have used by now, and gives it to those they worked for."""
        given = self.energy.note_readings(devices)
        if given:
            self.version += 1
        for share, joules in given.items():
            self._changed(share).joules += joules

    def _changed(self, key: Share) -> _Row:
        """A row that is about to change, or the one of all others where there are too many."""
        row = self._rows.pop(key, None)
        if row is None:
            if len(self._rows) >= _MOST_ROWS:
                key = (OTHERS, "")
            row = self._rows.pop(key, None) or _Row()
        self._rows[key] = row
        row.version = self.version
        return row

    def since(self, version: int) -> Sequence[neuron.DeviceUse]:
        """The totals that changed after a version; after 0, all of them."""
        changed: list[neuron.DeviceUse] = []
        for (principal, name), row in reversed(self._rows.items()):
            if row.version <= version:
                break
            changed.append(
                neuron.DeviceUse(
                    principal=principal,
                    model=name,
                    prefill_microseconds=row.prefill // _MICROSECOND,
                    decode_microseconds=row.decode // _MICROSECOND,
                    load_microseconds=row.load // _MICROSECOND,
                    unload_microseconds=row.unload // _MICROSECOND,
                    millijoules=int(row.joules * _MILLI),
                )
            )
        return changed
