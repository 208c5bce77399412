import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.security.principals import OTHERS
from services.neuron.engine_api.device_time import Charge
from services.neuron.supervisor import device_use
from services.neuron.supervisor.device_use import DeviceUse
from services.neuron.supervisor.energy import DeviceEnergy


def test_devices_that_work_together_count_each():
    use = DeviceUse()

    use.add([Charge("ada", "m", 1, 1000, 2000)], busy_ns=3000, devices=4)

    (row,) = use.since(0)
    assert (row.prefill_microseconds, row.decode_microseconds) == (4, 8)
    assert use.busy_microseconds == 12


def test_nothing_is_lost_of_more_principals_than_are_told_apart(monkeypatch):
    monkeypatch.setattr(device_use, "_MOST_ROWS", 2)
    use = DeviceUse()

    for name in ("a", "b", "c", "d", "a"):
        use.add([Charge(name, "m", load_ns=1000)], busy_ns=1000, devices=1)

    rows = {row.principal: row.load_microseconds for row in use.since(0)}
    assert rows == {"a": 2, "b": 1, OTHERS: 2}


def reading(joules: float) -> list[model.Device]:
    return [model.Device(device_id="gpu", energy_joules=joules)]


def test_energy_goes_to_the_principals_that_devices_worked_for(monkeypatch):
    now = 0.0
    monkeypatch.setattr(device_use, "_MOST_ROWS", 2)
    use = DeviceUse()
    use.energy = DeviceEnergy(lambda: now)
    use.note_readings(reading(1000))
    for name in ("ada", "bob", "cid"):
        charge = Charge(name, "m", 1, 500_000_000, 500_000_000)
        use.add([charge], busy_ns=1_000_000_000, devices=1, device_ids=["gpu"])
    told = use.version
    now = 3.0

    use.note_readings(reading(1300))

    rows = {row.principal: row.millijoules for row in use.since(told)}
    assert rows == {"ada": 100_000, "bob": 100_000, OTHERS: 100_000}
    assert sum(use.energy.joules.values()) == pytest.approx(300)


def test_devices_that_tell_no_energy_change_nothing():
    use = DeviceUse()
    use.add([Charge("ada", "m", 1, 1000, 2000)], busy_ns=3000, devices=1, device_ids=["cpu"])
    told = use.version

    use.note_readings([model.Device(device_id="cpu")])

    assert use.version == told
    assert [0] == [row.millijoules for row in use.since(0)]
