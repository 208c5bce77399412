"""Which quantisation a host takes, and which context."""

from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.instances.defaults import LoadDefaults, open_context, preferred
from services.neuron.settings import NeuronSettings
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


def trained(size: int, tokens: int, *, per_token: int = 100_000) -> Weights:
    return Weights(
        path=pathlib.Path("m.gguf"),
        format="gguf",
        bytes=size,
        max_context_tokens=tokens,
        cache_bytes_per_token=per_token,
    )


@pytest.mark.parametrize(
    ("gpus", "host", "tokens"),
    [
        ((), 64, 0),  # all of it fits
        ((), 17, 49_152),
        ((), 7, 8_192),  # it is refused with numbers
        ((17,), 64, 49_152),  # it stays on the GPU
        ((9, 9), 64, 49_152),
        ((7,), 64, 0),  # the host's turn
        ((40,), 64, 0),
    ],
)
def test_a_context_that_is_too_large_for_the_host_is_made_smaller(gpus, host, tokens):
    devices = [device(model.DEVICE_KIND_CUDA, size * GB) for size in gpus]
    devices.append(device(model.DEVICE_KIND_CPU, host * GB))

    assert open_context(trained(6 * GB - (256 << 20), 262_144), devices) == tokens


def test_nothing_is_said_of_a_small_context_or_of_a_model_that_says_nothing():
    tiny = [device(model.DEVICE_KIND_CPU, 2 * GB)]

    assert open_context(trained(6 * GB, 8_192), tiny) == 0
    assert open_context(trained(6 * GB, 262_144, per_token=0), tiny) == 0
    assert open_context(trained(6 * GB, 262_144), []) == 0


def test_what_is_asked_for_counts_before_what_fits_and_the_settings_are_a_cap():
    devices = [device(model.DEVICE_KIND_CPU, 17 * GB)]
    large = trained(6 * GB - (256 << 20), 262_144)
    free = LoadDefaults(NeuronSettings(), lambda: devices)
    capped = LoadDefaults(NeuronSettings(max_context_tokens=20_000), lambda: devices)

    asked = model.LoadSpec(max_context_tokens=262_144)
    contexts = [
        defaults.settled(spec, large).max_context_tokens
        for defaults in (free, capped)
        for spec in (model.LoadSpec(), asked)
    ]
    assert contexts == [49_152, 262_144, 20_000, 20_000]
    assert free.cache_tokens(large) == 49_152


def test_the_larger_quantisation_is_not_given_up_for_a_context_that_nobody_asked_for():
    sizes = (8 * GB, 14 * GB)
    several = [trained(size, 1_048_576, per_token=60_000) for size in sizes]
    devices = [device(model.DEVICE_KIND_CUDA, 19 * GB), device(model.DEVICE_KIND_CPU, 64 * GB)]

    chosen = LoadDefaults(NeuronSettings(), lambda: devices).preferred(several)

    assert chosen.bytes == 14 * GB


def test_a_small_model_on_a_small_budget_keeps_its_context():
    devices = [device(model.DEVICE_KIND_CPU, 120_000_000)]
    small = trained(300_000, 32_768, per_token=512)  # 16 MiB of cache

    assert open_context(small, devices) == 0
