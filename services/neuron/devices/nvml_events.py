"""Fetches critical events (Xid) of GPUs from NVML, without ever waiting for one."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from services.neuron.devices import mig
from services.neuron.devices.xid_faults import LOST, DeviceFault

_MOST_AT_ONCE: Final = 64
"""A kernel that goes wrong may be told once per multiprocessor."""


class DeviceEvents:
    """Critical events (Xid) of all GPUs, fetched from NVML.

    Every device has an event set of its own in the driver, so that the set says which device an
    event is of.
    """

    def __init__(self, nvml: Any) -> None:
        """Registers with every device that reports events.

        Args:
            nvml: the `pynvml` module, opened.
        """
        self._nvml = nvml
        self._sets: dict[str, Any] = {}
        self._instances: dict[str, list[str]] = {}
        self._lost: set[str] = set()
        for index in range(nvml.nvmlDeviceGetCount()):
            self._register(index)

    def fetch(self) -> list[DeviceFault]:
        """The critical events since the last call. Blocks as long as the driver takes to answer."""
        found: list[DeviceFault] = []
        for device_id, events in self._sets.items():
            found += self._of(device_id, events)
        return found

    def close(self) -> None:
        """Frees what the driver holds for these events."""
        for events in self._sets.values():
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(events)
        self._sets.clear()

    def _register(self, index: int) -> None:
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:  # a driver that tells no events is no reason to serve nothing
            return
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            device_id = nvml.nvmlDeviceGetUUID(handle)
            slices = mig.instances(nvml, handle) or []
            self._instances[device_id] = [nvml.nvmlDeviceGetUUID(one) for one in slices]
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError:  # some drivers and containers do not tell
            nvml.nvmlEventSetFree(events)
        else:
            self._sets[device_id] = events

    def _of(self, device_id: str, events: Any) -> list[DeviceFault]:
        nvml = self._nvml
        found: list[DeviceFault] = []
        # The driver tells of the whole GPU; its instances are what models run on.
        named = self._instances.get(device_id) or [device_id]
        for _ in range(0 if device_id in self._lost else _MOST_AT_ONCE):
            try:
                event = nvml.nvmlEventSetWait_v2(events, 0)
            except nvml.NVMLError_GpuIsLost:
                self._lost.add(device_id)
                found += [DeviceFault(one, LOST) for one in named]
                break
            except nvml.NVMLError:  # nothing has happened, or the driver does not say
                break
            found += [DeviceFault(one, int(event.eventData)) for one in named]
        return found
