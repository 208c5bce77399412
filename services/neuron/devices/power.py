"""What devices draw and have used: GPUs by NVML, the CPU by Linux' RAPL counters.

A device that does not say has neither figure: a guess would be worse than none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from cortex.v1 import model_pb2 as model

RAPL_FOLDER: Final = Path("/sys/class/powercap")
"""Its counters can be read by root alone, unless an administrator allows it."""
_PACKAGES: Final = "intel-rapl:*"
_MILLI, _MICRO = 1e-3, 1e-6
# Two readings that are closer together say little: counters move some ten times a second.
_LEAST_SECONDS: Final = 0.5


class _Sum(msgspec.Struct):
    """What a device has used since its first reading; `at` and `watts` are of the last one."""

    at: float
    watts: float
    joules: float = 0.0


class _Read(msgspec.Struct, frozen=True):
    """A reading of the CPU; `watts` is None in the first."""

    at: float
    joules: float
    watts: float | None


class PowerMeter:
    """Writes power and energy into the devices' messages. Thread-safe.

    Args:
        nvml: the `pynvml` module, opened; None without GPUs.
        rapl_folder: where the kernel's counters are; None: where it puts them.
        clock: seconds; never goes back.
    """

    def __init__(
        self,
        nvml: Any,
        *,
        rapl_folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._sums: dict[str, _Sum] = {}
        self._counting: set[str] = set()
        self._rapl = RaplCounters(rapl_folder or RAPL_FOLDER)
        self._lock = threading.Lock()
        self._cpu: _Read | None = None

    def read_gpu(self, device: model.Device, handle: Any) -> None:
        """Asks the driver for one GPU. Slices and some cards do not tell.

        What is used is the card's own count where it has one (since the driver was loaded), else
        the sum of what it drew at each reading (since this neuron started), which is an estimate.
        A card keeps to one of the two: the figure of one would go up by all that the other has.
        """
        milliwatts = self._asked("nvmlDeviceGetPowerUsage", handle)
        millijoules = self._asked("nvmlDeviceGetTotalEnergyConsumption", handle)
        if milliwatts is not None:
            device.power_watts = milliwatts * _MILLI
        name = device.device_id
        if millijoules is not None and name not in self._sums:
            self._counting.add(name)
            device.energy_joules = millijoules * _MILLI
        elif milliwatts is not None and name not in self._counting:
            device.energy_joules = self._summed(name, milliwatts * _MILLI)
            device.energy_estimated = True

    def read_cpu(self, device: model.Device) -> None:
        """Reads the kernel's counters, of all sockets together; power from the second time on."""
        with self._lock:
            joules, now = self._rapl.joules(), self._clock()
            if joules is None:
                self._cpu = None
                return
            if self._cpu is None:
                self._cpu = _Read(now, joules, None)
            elif (seconds := now - self._cpu.at) >= _LEAST_SECONDS:
                self._cpu = _Read(now, joules, (joules - self._cpu.joules) / seconds)
            device.energy_joules = joules
            if self._cpu.watts is not None:
                device.power_watts = self._cpu.watts

    def _asked(self, function: str, handle: Any) -> int | None:
        try:
            return int(getattr(self._nvml, function)(handle))
        except (self._nvml.NVMLError, AttributeError):
            return None

    def _summed(self, device_id: str, watts: float) -> float:
        with self._lock:
            now = self._clock()
            known = self._sums.setdefault(device_id, _Sum(now, watts))
            known.joules += (now - known.at) * (watts + known.watts) / 2
            known.at, known.watts = now, watts
            return known.joules


class RaplCounters:
    """The energy counters of all CPU packages (Running Average Power Limit); not thread-safe.

    https://docs.kernel.org/power/powercap/powercap.html

    Args:
        folder: has one folder for each of them.
    """

    def __init__(self, folder: Path) -> None:
        self._packages = [each for each in sorted(folder.glob(_PACKAGES)) if _is_package(each)]
        self._last: dict[Path, int] = {}
        self._microjoules = 0

    def joules(self) -> float | None:
        """What all have used since the first call; None where one cannot be read."""
        if not self._packages:
            return None
        try:
            now = {each: _number(each / "energy_uj") for each in self._packages}
            for package, count in now.items():
                grown = count - self._last.get(package, count)
                if grown < 0:  # it has begun anew
                    grown += _number(package / "max_energy_range_uj")
                self._microjoules += max(0, grown)
        except (OSError, ValueError):
            return None
        self._last = now
        return self._microjoules * _MICRO


def _is_package(folder: Path) -> bool:
    """Whether it counts a whole socket: parts of one, and the whole board, are listed beside it."""
    try:
        return (folder / "name").read_text(encoding="ascii").startswith("package")
    except (OSError, ValueError):
        return False


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
