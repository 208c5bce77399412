from __future__ import annotations

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.changes import Changes
from services.neuron.engine_api.model import ModelInfo
from services.neuron.instances.instances import Instance, Instances
from services.neuron.membership.report import StatusBoard
from services.neuron.supervisor.listener import SlotView, WorkerKey

GIB = 1 << 30


def board(
    *held: int, budget: int | None = None, slots: dict[WorkerKey, SlotView] | None = None
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
            memory_bytes={"cpu": size},
        )
        instances.add(instance)
    made = StatusBoard(
        identity=neuron.NeuronIdentity(),
        instances=instances,
        slots=lambda: slots or {},
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
        deaths=5,
        last_words="a kernel went wrong in /srv/secret/path.py",
        quarantine_reason="Its worker is not started any more: it died.",
        load_cycles=0,
    )

    (told,) = board(slots={key: dead}).devices

    assert told.quarantine_reason == "Its worker is not started any more: it died."
