"""What devices use goes to the models that they work for, once, and to nobody while they idle."""

from __future__ import annotations

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.supervisor.energy import ModelEnergy

SECOND = 1_000_000_000


class Meter:
    """Devices whose counters the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.energy = ModelEnergy(lambda: self.now)
        self.joules: dict[str, float] = {}

    def after(self, seconds: float, **grown: float) -> None:
        """Time passes, the counters grow, and are read."""
        self.now += seconds
        for device_id, joules in grown.items():
            self.joules[device_id] = self.joules.get(device_id, 0.0) + joules
        self.energy.note_readings(
            model.Device(device_id=name, energy_joules=count) for name, count in self.joules.items()
        )


@pytest.fixture
def meter() -> Meter:
    made = Meter()
    made.after(0, a=1000, b=0)
    return made


def test_models_share_by_the_time_that_was_worked_for_them(meter):
    meter.energy.charge("large", ["a"], 1 * SECOND)
    meter.energy.charge("small", ["a"], SECOND // 2)

    meter.after(2, a=400)

    assert meter.energy.joules == {"large": pytest.approx(200), "small": pytest.approx(100)}


def test_devices_that_work_together_count_each(meter):
    meter.energy.charge("m", ["a", "b"], 2 * SECOND)

    meter.after(2, a=400, b=100)

    assert meter.energy.joules == {"m": pytest.approx(500)}


def test_a_step_that_took_longer_than_a_reading_gets_all_that_was_used(meter):
    for _ in range(4):
        meter.after(2, a=600)
    meter.after(2, a=600)
    meter.energy.charge("m", ["a"], 6 * SECOND)

    meter.after(2, a=600)

    assert meter.energy.joules == {"m": pytest.approx(1800)}


def test_no_joule_is_given_away_twice(meter):
    for _ in range(3):  # two workers share one device, and each says that it was busy
        for name in ("one", "two"):
            meter.energy.charge(name, ["a"], 2 * SECOND)
        meter.after(2, a=400)

    assert sum(meter.energy.joules.values()) == pytest.approx(1200)


def test_a_device_that_does_not_tell_counts_for_nothing(meter):
    meter.energy.charge("m", ["cpu"], 2 * SECOND)
    meter.energy.charge("n", ["a"], 2 * SECOND)
    del meter.joules["a"]  # it is lost

    meter.after(2)

    assert meter.energy.joules == {}


def test_a_counter_that_begins_anew_takes_nothing_back(meter):
    meter.energy.charge("m", ["a"], 2 * SECOND)
    meter.after(2, a=400)
    meter.energy.charge("m", ["a"], 2 * SECOND)
    meter.after(2, a=-1300)
    meter.energy.charge("m", ["a"], 2 * SECOND)
    meter.after(2, a=100)

    assert meter.energy.joules == {"m": pytest.approx(500)}


def test_readings_at_one_moment_wait_for_the_next(meter):
    meter.energy.charge("m", ["a"], SECOND)
    meter.after(0.01, a=0)
    assert meter.energy.joules == {}

    meter.after(1.99, a=400)

    assert meter.energy.joules == {"m": pytest.approx(200)}
