"""Which of several quantisations a host takes."""

from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.instances.quantisation import preferred
from services.neuron.weights.inspect import Weights

GB = 10**9


def of(size: int, quantization: str) -> Weights:
    return Weights(
        path=pathlib.Path(quantization), format="gguf", bytes=size, quantization=quantization
    )


SEVERAL = [of(16 * GB, "F16"), of(5 * GB, "Q4_K_M"), of(9 * GB, "Q8_0")]


def device(kind: model.DeviceKind.ValueType, total: int) -> model.Device:
    # what is free now must not count
    return model.Device(kind=kind, memory_total_bytes=total, memory_reserved_bytes=GB)


@pytest.mark.parametrize(
    ("gpus", "host", "chosen"),
    [
        ((), 65, "Q8_0"),
        ((), 8, "Q4_K_M"),
        ((), 3, "Q4_K_M"),
        ((8,), 65, "Q4_K_M"),
        ((25,), 65, "Q8_0"),
        ((7, 7), 4, "Q8_0"),
        ((4,), 65, "Q8_0"),
    ],
)
def test_the_largest_packed_one_that_the_gpus_hold_else_the_host(gpus, host, chosen):
    devices = [device(model.DEVICE_KIND_CUDA, size * GB) for size in gpus]
    devices.append(device(model.DEVICE_KIND_CPU, host * GB))

    assert preferred(SEVERAL, devices, lambda one: one.bytes + GB).quantization == chosen


def test_what_is_not_packed_is_taken_where_there_is_nothing_else():
    only = [of(16 * GB, "F16"), of(32 * GB, "F32")]

    chosen = preferred(only, [device(model.DEVICE_KIND_CPU, 64 * GB)], lambda one: one.bytes)

    assert chosen.quantization == "F32"
