from __future__ import annotations

import dataclasses

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.changes import Changes
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.model import ModelInfo
from services.neuron.instances.instances import Instance, Instances
from services.neuron.membership.report import StatusBoard
from services.neuron.supervisor.device_use import DeviceUse
from services.neuron.supervisor.listener import SlotView, WorkerKey

GIB = 1 << 30


@dataclasses.dataclass
class Workers:
    view: dict[WorkerKey, SlotView]
    device_use: DeviceUse


def board(
    *held: int,
    budget: int | None = None,
    slots: dict[WorkerKey, SlotView] | None = None,
    use: DeviceUse | None = None,
) -> StatusBoard:
    """A board of a neuron with one device of 8 GiB, 6 of them free, and instances of these sizes."""
    instances = Instances(Changes())
    for number, size in enumerate(held):
        instance = Instance(instance_id=f"i{number}", spec=model.LoadSpec(model="m"))
        instance.info = ModelInfo(
            engine="llamacpp",
            architecture="llama",
            max_context_tokens=1,
            max_sequences=1,
            max_queued=1,
            cache_tokens=1,
            vocabulary_size=1,
            longest_token=12,
            memory_bytes={"cpu": size},
        )
        instances.add(instance)
    made = StatusBoard(
        identity=neuron.NeuronIdentity(),
        instances=instances,
        workers=Workers(slots or {}, use or DeviceUse()),
        memory_budget_bytes=budget,
    )
    made.note_devices([
        model.Device(device_id="cpu", memory_total_bytes=8 * GIB, memory_free_bytes=6 * GIB)
    ])  # fmt: skip
    return made


def told(made: StatusBoard) -> tuple[int, int]:
    (device,) = made.report().devices
    (planned_with,) = made.devices
    assert planned_with.memory_free_bytes == device.memory_free_bytes
    return device.memory_total_bytes, device.memory_free_bytes


def test_the_longest_token_is_told() -> None:
    made = board(GIB)
    instance = made.report().instances[0]

    assert instance.longest_token_bytes == 12


def test_without_a_budget_the_measured_figures_are_told():
    assert told(board(GIB, budget=None)) == (8 * GIB, 6 * GIB)


def test_a_budget_is_all_that_the_device_has():
    assert told(board(budget=2 * GIB)) == (2 * GIB, 2 * GIB)


def test_what_instances_hold_is_taken_off_the_budget():
    assert told(board(GIB, GIB // 2, budget=2 * GIB)) == (2 * GIB, GIB // 2)
    assert told(board(3 * GIB, budget=2 * GIB)) == (2 * GIB, 0)


def test_a_budget_makes_no_memory():
    assert told(board(budget=16 * GIB)) == (8 * GIB, 6 * GIB)


def test_the_devices_of_a_worker_that_died_too_often_take_no_loads():
    key = WorkerKey("exllamav2", ("cpu", "gpu"))
    dead = SlotView(
        key=key,
        state="quarantined",
        pid=0,
        rank_pids=(),
        deaths=5,
        last_words="a kernel went wrong in /srv/secret/path.py",
        quarantine_reason="Its worker is not started any more: it died.",
        load_cycles=0,
    )

    (told,) = board(slots={key: dead}).devices

    assert told.quarantine_reason == "Its worker is not started any more: it died."


def test_each_stream_is_told_all_that_was_used_and_then_what_has_changed():
    use = DeviceUse()
    made = board(use=use)
    use.add([Charge("ada", "m", 1, 2000, 3000)], busy_ns=5000, devices=2)
    use.add([Charge("bob", "m", load_ns=1000)], busy_ns=1000, devices=1)
    first, second = made.reports(), made.reports()

    whole = first()
    use.add([Charge("bob", "m", unload_ns=4000)], busy_ns=4000, devices=1)
    changed = first()

    ada = neuron.DeviceUse(
        principal="ada", model="m", prefill_microseconds=4, decode_microseconds=6
    )
    bob = neuron.DeviceUse(principal="bob", model="m", load_microseconds=1, unload_microseconds=4)
    assert [one.principal for one in whole.device_use] == ["bob", "ada"]
    assert list(changed.device_use) == [bob]
    assert not first().device_use
    assert list(second().device_use) == [bob, ada]
    assert changed.busy_microseconds == 15
    assert not made.report().device_use
