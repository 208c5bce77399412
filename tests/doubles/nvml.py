"""A driver with GPUs, in the place of the `pynvml` module: none is needed, and they can fail."""

from __future__ import annotations

import collections
import types

GIB = 1 << 30


class NVMLError(Exception):
    """As pynvml's: `value` is one of the driver's codes."""

    value = 999


class LibraryNotFoundError(NVMLError):
    """There is no driver."""


class NotSupportedError(NVMLError):
    """This device or driver cannot do that."""

    value = 3


class NotFoundError(NVMLError):
    """There is no such thing."""

    value = 6


class NothingYetError(NVMLError):
    """Nothing has happened."""

    value = 10


class GpuIsLostError(NVMLError):
    """The device has fallen off the bus."""

    value = 15


class Driver:
    """GPUs of 24 GiB, `GPU-0`, `GPU-1`, as NVML shows them.

    Attributes:
        used: bytes in use, by device.
        lost: devices that do not answer any more.
        xids: critical events that nobody has fetched yet, by device.
        processes: ids of those that hold memory, by device.
        asked_for_processes: so often somebody wanted to know them.
        has_events: this driver tells critical events.
        has_event_sets: it makes sets for them.
        milliwatts: what each draws; None where it does not say.
        millijoules: what each has used; None where it has no count.
        divided: instances of GPUs in MIG mode, by GPU, with gaps; their handles are their names.
    """

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = LibraryNotFoundError
    NVMLError_NotSupported = NotSupportedError
    NVMLError_NotFound = NotFoundError
    NVMLError_Timeout = NothingYetError
    NVMLError_GpuIsLost = GpuIsLostError
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - as pynvml calls it

    def __init__(self, count: int = 2) -> None:
        self.used = [4 * GIB] * count
        self.lost: set[int] = set()
        self.xids: dict[int, collections.deque[int]] = collections.defaultdict(collections.deque)
        self.processes: dict[int, set[int]] = collections.defaultdict(set)
        self.asked_for_processes = 0
        self.is_open = False
        self.has_events = True
        self.has_event_sets = True
        self.divided: dict[int, tuple[str | None, ...]] = {}
        self.open_sets = 0
        self.milliwatts: list[int | None] = [None] * count
        self.millijoules: list[int | None] = [None] * count

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._answer(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        index = int(uuid[-1]) if uuid.startswith("GPU-") else -1
        if not 0 <= index < len(self.used):
            raise NVMLError("Not Found")
        return self.nvmlDeviceGetHandleByIndex(index)

    def nvmlDeviceGetPciInfo(self, handle):
        return types.SimpleNamespace(busId=f"00000000:{handle + 1:02X}:00.0")

    def nvmlDeviceGetUUID(self, handle: int | str) -> str:
        if isinstance(handle, str):
            return handle
        self._answer(handle)
        return f"GPU-{handle}"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        if not self.divided:
            raise NotSupportedError("Not Supported")
        return [int(handle in self.divided)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return len(self.divided[handle])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> str:
        found = self.divided[handle][index]
        if found is None:
            raise NotFoundError("Not Found")
        return found

    def nvmlDeviceGetName(self, _: int) -> str:
        return "RTX"

    def nvmlDeviceGetMemoryInfo(self, handle: int | str) -> types.SimpleNamespace:
        if isinstance(handle, str):
            return types.SimpleNamespace(total=10 * GIB, free=9 * GIB, used=GIB)
        self._answer(handle)
        used = self.used[handle]
        return types.SimpleNamespace(total=24 * GIB, free=24 * GIB - used, used=used)

    def nvmlDeviceGetTemperature(self, handle: int | str, _: int) -> int:
        if isinstance(handle, str):
            raise NotSupportedError("Not Supported")
        return 40

    def nvmlDeviceGetPowerUsage(self, handle: int | str) -> int:
        return self._told(self.milliwatts, handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int | str) -> int:
        return self._told(self.millijoules, handle)

    def _told(self, figures: list[int | None], handle: int | str) -> int:
        found = None if isinstance(handle, str) else figures[handle]
        if found is None:
            raise NotSupportedError("Not Supported")
        return found

    def nvmlDeviceGetUtilizationRates(self, _: int) -> types.SimpleNamespace:
        raise NotSupportedError("Not Supported")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[types.SimpleNamespace]:
        self._answer(handle)
        self.asked_for_processes += 1
        return [types.SimpleNamespace(pid=pid) for pid in self.processes[handle]]

    def nvmlEventSetCreate(self) -> list[int]:
        if not self.has_event_sets:
            raise NVMLError("Insufficient Resources")
        self.open_sets += 1
        return []

    def nvmlEventSetFree(self, _: list[int]) -> None:
        self.open_sets -= 1

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: list[int]) -> None:
        if not self.has_events:
            raise NotSupportedError("Not Supported")
        assert kinds == self.nvmlEventTypeXidCriticalError
        events.append(handle)

    def nvmlEventSetWait_v2(self, events: list[int], timeout_ms: int) -> types.SimpleNamespace:
        assert timeout_ms == 0, "nobody may wait here"
        (handle,) = events
        if self.xids[handle]:
            return types.SimpleNamespace(eventType=8, eventData=self.xids[handle].popleft())
        self._answer(handle)
        raise NothingYetError("Timeout")

    def _answer(self, handle: int) -> None:
        if handle in self.lost:
            raise GpuIsLostError("GPU is lost")
