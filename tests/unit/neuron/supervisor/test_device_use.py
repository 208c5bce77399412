from services.backplane.security.principals import OTHERS
from services.neuron.engine_api.device_time import Charge
from services.neuron.supervisor import device_use
from services.neuron.supervisor.device_use import DeviceUse


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
