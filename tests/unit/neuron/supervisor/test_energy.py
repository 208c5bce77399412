"""What devices use goes to the models that they work for, once, and to nobody while they idle."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.supervisor.energy import DeviceEnergy

SECOND = 1_000_000_000


class Meter:
    """Devices whose counters the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.energy = DeviceEnergy(lambda: self.now)
        self.joules: dict[str, float] = {}
        self.given: Mapping[tuple[str, str], float] = {}

    def after(self, seconds: float, **grown: float) -> None:
        """Time passes, the counters grow, and are read."""
        self.now += seconds
        for device_id, joules in grown.items():
            self.joules[device_id] = self.joules.get(device_id, 0.0) + joules
        self.given = self.energy.note_readings(
            model.Device(device_id=name, energy_joules=count) for name, count in self.joules.items()
        )


@pytest.fixture
def meter() -> Meter:
    made = Meter()
    made.after(0, a=1000, b=0)
    return made


def test_models_share_by_the_time_that_was_worked_for_them(meter):
    meter.energy.charge("ada", "large", ["a"], 1 * SECOND)
    meter.energy.charge("ada", "small", ["a"], SECOND // 2)

    meter.after(2, a=400)

    assert meter.energy.joules == {"large": pytest.approx(200), "small": pytest.approx(100)}


def test_devices_that_work_together_count_each(meter):
    meter.energy.charge("ada", "m", ["a", "b"], 2 * SECOND)

    meter.after(2, a=400, b=100)

    assert meter.energy.joules == {"m": pytest.approx(500)}


def test_a_step_that_took_longer_than_a_reading_gets_all_that_was_used(meter):
    for _ in range(4):
        meter.after(2, a=600)
    meter.after(2, a=600)
    meter.energy.charge("ada", "m", ["a"], 6 * SECOND)

    meter.after(2, a=600)

    assert meter.energy.joules == {"m": pytest.approx(1800)}


def test_no_joule_is_given_away_twice(meter):
    for _ in range(3):  # two workers share one device, and each says that it was busy
        for name in ("one", "two"):
            meter.energy.charge("ada", name, ["a"], 2 * SECOND)
        meter.after(2, a=400)

    assert sum(meter.energy.joules.values()) == pytest.approx(1200)


def test_a_device_that_does_not_tell_counts_for_nothing(meter):
    meter.energy.charge("ada", "m", ["cpu"], 2 * SECOND)
    meter.energy.charge("ada", "n", ["a"], 2 * SECOND)
    del meter.joules["a"]  # it is lost

    meter.after(2)

    assert meter.energy.joules == {}


def test_a_counter_that_begins_anew_takes_nothing_back(meter):
    meter.energy.charge("ada", "m", ["a"], 2 * SECOND)
    meter.after(2, a=400)
    meter.energy.charge("ada", "m", ["a"], 2 * SECOND)
    meter.after(2, a=-1300)
    meter.energy.charge("ada", "m", ["a"], 2 * SECOND)
    meter.after(2, a=100)

    assert meter.energy.joules == {"m": pytest.approx(500)}


def test_readings_at_one_moment_wait_for_the_next(meter):
    meter.energy.charge("ada", "m", ["a"], SECOND)
    meter.after(0.01, a=0)
    assert meter.energy.joules == {}

    meter.after(1.99, a=400)

    assert meter.energy.joules == {"m": pytest.approx(200)}


def test_principals_get_their_parts_of_each_model(meter):
    meter.energy.charge("ada", "m", ["a"], 1 * SECOND)
    meter.energy.charge("bob", "m", ["a"], SECOND // 2)
    meter.energy.charge("bob", "n", ["a"], SECOND // 2)

    meter.after(2, a=400)

    expected = {("ada", "m"): 200, ("bob", "m"): 100, ("bob", "n"): 100}
    assert meter.given == {share: pytest.approx(joules) for share, joules in expected.items()}
    meter.after(2, a=400)
    assert meter.given == {}


def test_the_power_of_devices_is_that_of_their_last_work(meter):
    assert meter.energy.watts(["a"]) is None
    meter.after(2, a=100, b=40)
    assert meter.energy.watts(["a"]) == pytest.approx(50)
    meter.energy.charge("ada", "m", ["a"], 2 * SECOND)
    meter.after(2, a=600)
    meter.after(2, a=100)  # it rests

    assert meter.energy.watts(["a"]) == pytest.approx(300)
    assert meter.energy.watts(["a", "b"]) == pytest.approx(320)
    assert meter.energy.watts(["a", "cpu"]) is None
    assert meter.energy.watts([]) is None
