"""What this machine has to run models on, and how much of it is free right now.

The GPUs' driver is asked through NVML, never through a GPU library, so that the daemon holds no
GPU context. Everything here may block; the daemon calls it from a thread.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import psutil
from typing_extensions import override

from cortex.v1 import model_pb2 as model
from services.neuron.devices import mig
from services.neuron.devices.ggml import GgmlListing, pci_id
from services.neuron.devices.nvml_events import DeviceEvents
from services.neuron.devices.power import PowerMeter
from services.neuron.devices.watch import FaultReader
from services.neuron.devices.xid_faults import DeviceFault

CPU: Final = "cpu"
# Packages of each engine, and whether it needs a GPU.
_ENGINES: Final = {
    "llamacpp": (("xllamacpp",), False),
    "exllamav2": (("exllamav2", "torch"), True),
}


class Devices(FaultReader):
    """The devices of this machine. NVML is opened once, where there is a driver."""

    def __init__(self, *, reserved_bytes: int, ggml: GgmlListing | None = None) -> None:
        """Opens NVML.

        Args:
            reserved_bytes: of each device, what no placement may use.
            ggml: the devices that llama.cpp sees.
        """
        self._ggml = ggml or GgmlListing()
        self._reserved = reserved_bytes
        self.problems: list[str] = []
        self._nvml: Any = self._open_nvml()
        self._meter = PowerMeter(self._nvml)
        # A GPU that is lost no longer says who it was.
        self._known: dict[int, str] = {}
        self._events = DeviceEvents(self._nvml) if self._nvml is not None else None
        self._spoilt: dict[str, str] = {}
        self.problems += [self._ggml.problem] if self._ggml.problem else []
        self.ggml_ids: Mapping[str, str] = self._matched()

    def read(self) -> list[model.Device]:
        """All devices, measured now."""
        return [*self._gpus(), *self._other_gpus(), self._cpu()]

    @property
    def has_gpu(self) -> bool:
        """True if NVML, the GPU driver's library, was found and answers."""
        return self._nvml is not None

    def used_bytes(self, device_ids: Sequence[str]) -> Mapping[str, int]:
        """Memory in use on GPUs, by whomever; devices that NVML does not know are left out."""
        nvml, used = self._nvml, dict[str, int]()
        if nvml is None:
            return used
        for device_id in device_ids:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(device_id)
                used[device_id] = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
            except nvml.NVMLError:  # the CPU, or a device that is lost
                continue
        return used

    @override
    def faults(self) -> list[DeviceFault]:
        """Critical events since the last call. Devices of lasting ones take no work any more."""
        found = [] if self._events is None else self._events.fetch()
        self._spoilt.update({one.device_id: str(one) for one in found if one.is_lasting})
        return found

    @override
    def is_held(self, device_ids: Sequence[str], pids: Collection[int]) -> bool:
        nvml = self._nvml
        if nvml is None:
            return False
        for device_id in device_ids:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(device_id)
                found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            except nvml.NVMLError:
                continue
            if any(one.pid in pids for one in found):
                return True
        return False

    def close(self) -> None:
        """Closes NVML."""
        if self._events is not None:
            self._events.close()
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def _open_nvml(self) -> Any:
        try:
            import pynvml as module
        except ImportError:
            return None
        pynvml: Any = module  # its exceptions are made at import time
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError_LibraryNotFound:  # a machine without a GPU
            return None
        except pynvml.NVMLError as error:
            self.problems.append(f"The GPU driver does not answer: {error}.")
            return None
        return pynvml

    def _matched(self) -> dict[str, str]:
        """Device id to llama.cpp's own, of GPUs that it sees: NVML's id where both see one."""
        matched = {device.device_id: device.device_id for device in self._ggml.gpus}
        nvml = self._nvml
        if nvml is None or not matched:
            return matched
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                address = pci_id(str(nvml.nvmlDeviceGetPciInfo(handle).busId))
                if matched.pop(address or "", None):
                    matched[nvml.nvmlDeviceGetUUID(handle)] = address or ""
        return matched

    def _other_gpus(self) -> list[model.Device]:
        """GPUs that llama.cpp sees and NVML does not: what was free when it was asked."""
        return [
            model.Device(
                device_id=device.device_id,
                name=device.description,
                kind=model.DEVICE_KIND_GPU,
                memory_total_bytes=device.memory_total_bytes,
                memory_free_bytes=device.memory_free_bytes,
                memory_reserved_bytes=self._reserved,
            )
            for device in self._ggml.gpus
            if device.device_id in self.ggml_ids
        ]

    def _cpu(self) -> model.Device:
        memory = psutil.virtual_memory()
        device = model.Device(
            device_id=CPU,
            name=platform.processor() or platform.machine(),
            kind=model.DEVICE_KIND_CPU,
            memory_total_bytes=memory.total,
            memory_free_bytes=memory.available,
            memory_reserved_bytes=self._reserved,
            utilization_ratio=psutil.cpu_percent(interval=None) / 100,
        )
        self._meter.read_cpu(device)
        return device

    def _gpus(self) -> Sequence[model.Device]:
        nvml = self._nvml
        if nvml is None:
            return ()
        made: list[model.Device] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                slices = mig.instances(nvml, handle)
                made += map(self._gpu, [handle] if slices is None else slices)
                self._known[index] = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError as error:
                made.append(
                    model.Device(
                        device_id=self._known.get(index, f"gpu-{index}"),
                        kind=model.DEVICE_KIND_CUDA,
                        quarantine_reason=f"NVML: {error}",
                    )
                )
        return made

    def _gpu(self, handle: Any) -> model.Device:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        device = model.Device(
            device_id=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            kind=model.DEVICE_KIND_CUDA,
            memory_total_bytes=memory.total,
            memory_free_bytes=memory.free,
            memory_reserved_bytes=self._reserved,
        )
        device.quarantine_reason = self._spoilt.get(device.device_id, "")
        # slices of a GPU and some drivers do not tell
        with contextlib.suppress(nvml.NVMLError):
            device.utilization_ratio = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with contextlib.suppress(nvml.NVMLError):
            device.temperature_celsius = nvml.nvmlDeviceGetTemperature(handle, 0)
        self._meter.read_gpu(device, handle)
        return device


def copied(device: model.Device) -> model.Device:
    """A copy of a device's message, which may be changed without changing the original."""
    made = model.Device()
    made.CopyFrom(device)
    return made


def within_budget(device: model.Device, budget_bytes: int, held_bytes: int) -> model.Device:
    """The device as it is reported where the neuron may use only a part of its memory.

    Args:
        device: as it was measured.
        budget_bytes: most that all models together may hold on it.
        held_bytes: what they hold now.
    """
    capped = unheld(device, held_bytes) if device.kind == model.DEVICE_KIND_GPU else copied(device)
    capped.memory_total_bytes = min(device.memory_total_bytes, budget_bytes)
    capped.memory_free_bytes = min(capped.memory_free_bytes, max(0, budget_bytes - held_bytes))
    return capped


def unheld(device: model.Device, held_bytes: int) -> model.Device:
    """A device that no driver measures, less the memory that our models hold there."""
    made = copied(device)
    made.memory_free_bytes = max(0, device.memory_free_bytes - held_bytes)
    return made


def machine_memory_bytes() -> int:
    """All of the machine's main memory."""
    return psutil.virtual_memory().total


def importable_engines(*, has_gpu: bool) -> tuple[list[str], list[str]]:
    """Engines whose packages are installed, and why others that could run are not here.

    Nothing is imported: an engine that is installed may still refuse to start in its worker.
    """
    here: list[str] = []
    problems: list[str] = []
    for engine, (packages, needs_gpu) in _ENGINES.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing and (has_gpu or not needs_gpu):
            problems.append(f"The engine {engine} is not here: {', '.join(missing)} not installed.")
        elif not missing:
            here.append(engine)
    return here, problems
