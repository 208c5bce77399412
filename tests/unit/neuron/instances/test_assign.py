from __future__ import annotations

import pathlib

from cortex.v1 import model_pb2 as model
from services.neuron.instances.assign import Assignments
from services.neuron.instances.division import GgufRules
from services.neuron.weights.inspect import Weights

GIB = 1 << 30


class Machine:
    """Two GPUs; what they have free is what a test says."""

    def __init__(self, *free: int) -> None:
        self.devices = [
            model.Device(
                device_id=f"GPU-{index}", kind=model.DEVICE_KIND_CUDA, memory_free_bytes=size
            )
            for index, size in enumerate(free)
        ]
        self.measured = 0
        self.assignments = Assignments(
            engines=["exllamav2"],
            default_engine="",
            devices=lambda: self.devices,
            measure=self._measure,
            settled=lambda spec, _: spec,
            gguf=GgufRules(),
        )

    async def _measure(self) -> None:
        self.measured += 1

    async def assign(self, name: str, size: int) -> tuple[str, ...]:
        weights = Weights(path=pathlib.Path(name), format="exl2", bytes=size)
        placed = await self.assignments.assign(name, model.LoadSpec(model=name), weights)
        return placed.key.device_ids


async def test_two_loads_do_not_count_on_the_same_memory():
    machine = Machine(20 * GIB, 18 * GIB)

    assert await machine.assign("first", 10 * GIB) == ("GPU-0",)
    assert await machine.assign("second", 10 * GIB) == ("GPU-1",)
    assert await machine.assign("third", 14 * GIB) == ("GPU-0", "GPU-1")  # of what they leave
    assert machine.measured == 3


async def test_what_is_in_place_is_measured_and_no_longer_promised():
    machine = Machine(20 * GIB, 12 * GIB)
    await machine.assign("first", 12 * GIB)
    machine.assignments.note("first", 12 * GIB)
    machine.devices[0].memory_free_bytes -= 6 * GIB  # another process has left some meanwhile

    assert await machine.assign("second", 12 * GIB) == ("GPU-0",)


async def test_a_load_that_has_ended_promises_nothing():
    machine = Machine(20 * GIB, 12 * GIB)
    await machine.assign("first", 12 * GIB)
    machine.assignments.release("first")
    machine.assignments.note("first", GIB)

    assert await machine.assign("second", 12 * GIB) == ("GPU-0",)


async def test_a_group_is_promised_on_all_of_its_devices():
    machine = Machine(20 * GIB, 20 * GIB)
    assert await machine.assign("large", 30 * GIB) == ("GPU-0", "GPU-1")

    placed, devices = await machine.assignments.consider(
        model.LoadSpec(), Weights(path=pathlib.Path("small"), format="exl2", bytes=8 * GIB)
    )

    assert not placed.fits
    assert {one.memory_free_bytes >> 30 for one in devices} == {4}
    assert machine.devices[0].memory_free_bytes == 20 * GIB  # the measured ones stay as they are
