from __future__ import annotations

import sys
import types

import pytest

from services.neuron.devices import CPU, Devices

GIB = 1 << 30


class NVMLError(Exception): ...


class LibraryNotFoundError(NVMLError): ...


class Driver:
    """Two GPUs as NVML shows them; no GPU is needed, nor can one be made to fail on demand."""

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = LibraryNotFoundError

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.is_open = False

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in {"GPU-0", "GPU-1"}:
            raise NVMLError("Not Found")
        return self.nvmlDeviceGetHandleByIndex(int(uuid[-1]))

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, _: int) -> str:
        return "RTX"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(total=24 * GIB, free=20 * GIB, used=(4 + handle) * GIB)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> types.SimpleNamespace:
        raise NVMLError("Not Supported")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def test_gpus_come_before_the_cpu_with_what_is_free(driver):
    devices = Devices(reserved_bytes=GIB)

    found = devices.read()

    assert [one.device_id for one in found] == ["GPU-0", "GPU-1", CPU]
    assert found[0].memory_free_bytes == 20 * GIB
    assert found[0].memory_reserved_bytes == GIB
    assert not found[0].HasField("utilization_ratio")  # this driver does not tell
    devices.close()
    assert not driver.is_open


def test_a_gpu_that_is_lost_keeps_its_name_and_takes_no_work(driver):
    devices = Devices(reserved_bytes=0)
    devices.read()
    driver.lost.add(1)

    _, lost, _ = devices.read()

    assert lost.device_id == "GPU-1"
    assert "GPU is lost" in lost.quarantine_reason


def test_use_is_told_of_gpus_that_the_driver_knows(driver):
    devices = Devices(reserved_bytes=0)
    driver.lost.add(0)

    assert devices.used_bytes(["GPU-0", "GPU-1", CPU]) == {"GPU-1": 5 * GIB}


def test_without_a_driver_there_is_the_cpu(driver, monkeypatch):
    def nothing() -> None:
        raise LibraryNotFoundError

    monkeypatch.setattr(driver, "nvmlInit", nothing)
    devices = Devices(reserved_bytes=0)

    assert [one.device_id for one in devices.read()] == [CPU]
    assert devices.used_bytes([CPU]) == {}
    assert not devices.has_gpu
    assert not devices.problems


def test_a_driver_that_does_not_answer_is_a_problem(driver, monkeypatch):
    def broken() -> None:
        raise NVMLError("Driver/library version mismatch")

    monkeypatch.setattr(driver, "nvmlInit", broken)

    assert "version mismatch" in Devices(reserved_bytes=0).problems[0]
