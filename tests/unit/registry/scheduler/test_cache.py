from __future__ import annotations

from services.registry.fleet.records import Device, NeuronIdentity, NeuronReport
from services.registry.fleet.state import FleetState
from services.registry.scheduler.cache import SchedulerCache


def cache() -> SchedulerCache:
    fleet_state = FleetState(lambda: 0.0)
    epoch = fleet_state.fleet.attach(NeuronIdentity("n", "i", "n:1"))
    devices = (Device("gpu0", "cuda", 100, 100), Device("cpu", "cpu", 100, 80))
    fleet_state.fleet.report("n", epoch, NeuronReport(1, devices), 0.0, None)
    return SchedulerCache(fleet_state)


def free(seen: SchedulerCache) -> dict[str, int]:
    return {device.device_id: device.free_bytes for device in seen.of("n").devices}


def test_what_loads_to_gpus_will_take_of_the_host_is_not_free_for_others_meanwhile():
    seen = cache()

    seen.promise("n", 1, 30)
    seen.promise("n", 2, 20)
    assert free(seen) == {"gpu0": 100, "cpu": 30}
    seen.redeem("n", 1)
    assert free(seen) == {"gpu0": 100, "cpu": 60}
    seen.redeem("n", 2)

    assert free(seen) == {"gpu0": 100, "cpu": 80}
