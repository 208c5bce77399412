"""Power and energy are told where a device or the kernel tells them, and nowhere else."""

from __future__ import annotations

import pathlib
import sys

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.devices.inventory import Devices
from services.neuron.devices.power import PowerMeter, RaplCounters
from tests.doubles.nvml import Driver

RANGE = 262_143_328_850


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def gpu(meter: PowerMeter, index: int | str = 0) -> model.Device:
    device = model.Device(device_id=f"GPU-{index}")
    meter.read_gpu(device, index)
    return device


def cpu(meter: PowerMeter) -> model.Device:
    device = model.Device(device_id="cpu")
    meter.read_cpu(device)
    return device


def package(folder: pathlib.Path, number: int, name: str, microjoules: int) -> pathlib.Path:
    made = folder / f"intel-rapl:{number}"
    made.mkdir()
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return made


def test_a_card_that_counts_is_believed(tmp_path):
    driver = Driver()
    driver.milliwatts[0], driver.millijoules[0] = 287_400, 5_000_000

    told = gpu(PowerMeter(driver, rapl_folder=tmp_path))

    assert told.power_watts == pytest.approx(287.4)
    assert told.energy_joules == 5000
    assert not told.energy_estimated


def test_a_card_without_a_count_is_added_up_and_said_to_be_estimated(tmp_path):
    driver, clock = Driver(), Clock()
    meter = PowerMeter(driver, rapl_folder=tmp_path, clock=clock)
    driver.milliwatts[0] = 100_000
    assert gpu(meter).energy_joules == 0
    clock.now += 2
    driver.milliwatts[0] = 300_000

    told = gpu(meter)

    assert told.energy_joules == pytest.approx(400)  # 2 s at 200 W in the middle
    assert told.energy_estimated


def test_a_count_that_cannot_be_read_for_once_is_not_added_up_in_its_place(tmp_path):
    driver = Driver()
    meter = PowerMeter(driver, rapl_folder=tmp_path)
    driver.milliwatts[0], driver.millijoules[0] = 100_000, 5_000_000_000
    gpu(meter)

    del driver.millijoules[0]
    assert not gpu(meter).HasField("energy_joules")

    driver.millijoules[0] = 5_000_200_000
    assert (5_000_200, False) == (gpu(meter).energy_joules, gpu(meter).energy_estimated)


def test_a_card_that_is_added_up_stays_so(tmp_path):
    driver = Driver()
    meter = PowerMeter(driver, rapl_folder=tmp_path)
    driver.milliwatts[0] = 100_000
    gpu(meter)

    driver.millijoules[0] = 5_000_000_000

    assert gpu(meter).energy_joules < 1000


def test_slices_and_silent_cards_tell_nothing(tmp_path):
    meter = PowerMeter(Driver(), rapl_folder=tmp_path)

    for told in (gpu(meter), gpu(meter, "MIG-1"), cpu(meter)):
        assert not told.HasField("power_watts")
        assert not told.HasField("energy_joules")


def test_the_inventory_has_them_beside_the_temperature(monkeypatch):
    driver = Driver()
    driver.milliwatts[1] = 90_000
    monkeypatch.setitem(sys.modules, "pynvml", driver)

    first, second, _ = Devices(reserved_bytes=0).read()

    assert not first.HasField("power_watts")
    assert second.power_watts == pytest.approx(90)
    assert second.temperature_celsius == 40


def test_sockets_are_added_up_and_their_parts_left_out(tmp_path):
    clock = Clock()
    first = package(tmp_path, 0, "package-0", 1_000_000)
    second = package(tmp_path, 1, "package-1", 0)
    package(tmp_path, 2, "psys", 7)
    part = tmp_path / "intel-rapl:0:0"
    part.mkdir()
    (part / "name").write_text("core\n")
    meter = PowerMeter(None, rapl_folder=tmp_path, clock=clock)
    before = cpu(meter)
    assert before.energy_joules == 0
    assert not before.HasField("power_watts")  # one reading says nothing of it
    clock.now += 2
    (first / "energy_uj").write_text("61000000\n")
    (second / "energy_uj").write_text("40000000\n")

    told = cpu(meter)

    assert told.energy_joules == pytest.approx(100)
    assert told.power_watts == pytest.approx(50)
    assert not told.energy_estimated
    clock.now += 0.1  # too soon for another figure
    assert cpu(meter).power_watts == pytest.approx(50)


def test_a_counter_that_begins_anew_goes_on(tmp_path):
    counter = package(tmp_path, 0, "package-0", RANGE - 1_000_000) / "energy_uj"
    rapl = RaplCounters(tmp_path)
    assert rapl.joules() == 0
    counter.write_text("2000000\n")

    assert rapl.joules() == pytest.approx(3)


@pytest.mark.parametrize("trouble", ["unreadable", "gone", "words"])
def test_counters_that_may_not_be_read_leave_the_cpu_without_figures(tmp_path, trouble):
    counter = package(tmp_path, 0, "package-0", 5) / "energy_uj"
    if trouble == "words":
        counter.write_text("no number\n")
    else:
        counter.unlink()
        if trouble == "unreadable":
            counter.mkdir()  # root may read every file
    told = cpu(PowerMeter(None, rapl_folder=tmp_path))

    assert not told.HasField("power_watts")
    assert not told.HasField("energy_joules")
