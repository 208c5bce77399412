from __future__ import annotations

import sys

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.devices.ggml import GgmlDevice, GgmlListing
from services.neuron.devices.inventory import CPU, Devices, within_budget
from services.neuron.devices.xid_faults import DeviceFault
from tests.doubles.nvml import GIB, Driver, LibraryNotFoundError, NVMLError


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

    assert devices.used_bytes(["GPU-0", "GPU-1", CPU]) == {"GPU-1": 4 * GIB}


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


def test_critical_events_are_told_once_and_spoil_a_device_where_they_last(driver):
    devices = Devices(reserved_bytes=0)
    driver.xids[0].extend([13, 31])
    driver.xids[1].append(48)

    found = devices.faults()

    assert found == [DeviceFault("GPU-0", 13), DeviceFault("GPU-0", 31), DeviceFault("GPU-1", 48)]
    assert not devices.faults()
    first, second, _ = devices.read()
    assert not first.quarantine_reason
    assert "Xid 48 on GPU-1: an uncorrectable memory error" in second.quarantine_reason


def test_a_gpu_that_fell_off_the_bus_is_told_once(driver):
    devices = Devices(reserved_bytes=0)
    driver.lost.add(1)

    (found,) = devices.faults()

    assert str(found) == "Xid 79 on GPU-1: the GPU has fallen off the bus"
    assert found.is_lasting
    assert not devices.faults()


def test_an_event_of_no_name_is_told_too(driver):
    devices = Devices(reserved_bytes=0)
    driver.xids[0].append(999)

    (found,) = devices.faults()

    assert "Xid 999" in str(found)
    assert not found.is_lasting


def test_a_flood_of_events_does_not_hold_the_daemon(driver):
    devices = Devices(reserved_bytes=0)
    driver.xids[0].extend([13] * 1000)

    assert 0 < len(devices.faults()) < 1000


def test_a_driver_that_tells_no_events_is_asked_for_none(driver):
    driver.has_events = False
    devices = Devices(reserved_bytes=0)

    assert not devices.faults()
    assert driver.open_sets == 0


def test_event_sets_are_given_back(driver):
    devices = Devices(reserved_bytes=0)
    assert driver.open_sets == 2

    devices.close()

    assert driver.open_sets == 0


def test_a_processs_memory_is_looked_for_on_its_devices(driver):
    devices = Devices(reserved_bytes=0)
    driver.processes[1].add(77)

    assert devices.is_held(["GPU-0", "GPU-1", CPU], [77])
    assert not devices.is_held(["GPU-0"], [77])
    assert not devices.is_held(["GPU-1"], [78])
    driver.lost.add(1)
    assert not devices.is_held(["GPU-1"], [77])


def seen(device_id: str, kind: str = "gpu") -> GgmlDevice:
    return GgmlDevice(device_id, "X0", "a card", "X", kind, 8 * GIB, 7 * GIB)


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_llama_cpp_sees_too_is_one_device():
    listing = GgmlListing(devices=(seen("pci-0000:02:00.0"), seen("cpu", "cpu")))

    devices = Devices(reserved_bytes=0, ggml=listing)

    assert [one.device_id for one in devices.read()] == ["GPU-0", "GPU-1", CPU]
    assert devices.ggml_ids == {"GPU-1": "pci-0000:02:00.0"}


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_llama_cpp_alone_sees_is_a_device_too():
    devices = Devices(reserved_bytes=GIB, ggml=GgmlListing(devices=(seen("vulkan0"),)))

    *_, other, cpu = devices.read()

    assert (other.device_id, other.kind) == ("vulkan0", model.DEVICE_KIND_GPU)
    assert (other.memory_total_bytes, other.memory_free_bytes) == (8 * GIB, 7 * GIB)
    assert devices.ggml_ids == {"vulkan0": "vulkan0"}
    assert cpu.device_id == CPU


@pytest.mark.usefixtures("driver")
def test_a_card_that_two_backends_see_is_one_device():
    """A build with ROCm and Vulkan: its memory is there once."""
    first, second = seen("pci-0000:05:00.0"), seen("pci-0000:05:00.0")

    devices = Devices(reserved_bytes=0, ggml=GgmlListing(devices=(first, second)))

    assert [one.device_id for one in devices.read()].count("pci-0000:05:00.0") == 1


def test_a_device_that_nobody_measures_has_less_by_what_our_models_hold():
    other = model.Device(
        device_id="v", kind=model.DEVICE_KIND_GPU, memory_total_bytes=8, memory_free_bytes=7
    )

    assert within_budget(other, 6, 2).memory_free_bytes == 4
    assert within_budget(other, 8, 2).memory_free_bytes == 5


@pytest.mark.usefixtures("driver")
def test_a_library_that_cannot_be_asked_is_a_problem_that_is_told():
    devices = Devices(reserved_bytes=0, ggml=GgmlListing(problem="It is broken."))

    assert devices.problems == ["It is broken."]


def test_instances_of_a_divided_gpu_are_devices_and_the_gpu_is_none(driver):
    driver.divided = {0: ("MIG-a", None, "MIG-b")}
    devices = Devices(reserved_bytes=0)

    found = devices.read()

    assert [one.device_id for one in found] == ["MIG-a", "MIG-b", "GPU-1", CPU]
    assert [one.memory_total_bytes // GIB for one in found[:3]] == [10, 10, 24]


def test_an_error_of_a_divided_gpu_is_one_of_all_its_instances(driver):
    driver.divided = {0: ("MIG-a", "MIG-b")}
    devices = Devices(reserved_bytes=0)
    driver.xids[0].append(79)

    assert devices.faults() == [DeviceFault("MIG-a", 79), DeviceFault("MIG-b", 79)]
    assert all(one.quarantine_reason for one in devices.read()[:2])


def test_a_driver_without_event_sets_ends_nothing(driver):
    driver.has_event_sets = False

    devices = Devices(reserved_bytes=0)

    assert devices.faults() == []
    assert devices.read()[0].device_id == "GPU-0"
    devices.close()
