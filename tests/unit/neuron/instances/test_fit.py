from __future__ import annotations

import dataclasses
import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.instances import fit
from services.neuron.supervisor.listener import WorkerKey
from services.neuron.weights.inspect import Weights

GIB = 1 << 30
CPU = model.Device(device_id="cpu", kind=model.DEVICE_KIND_CPU, memory_free_bytes=8 * GIB)
SMALL = model.Device(device_id="gpu-a", kind=model.DEVICE_KIND_CUDA, memory_free_bytes=4 * GIB)
LARGE = model.Device(device_id="gpu-b", kind=model.DEVICE_KIND_CUDA, memory_free_bytes=9 * GIB)
BROKEN = model.Device(
    device_id="gpu-c",
    kind=model.DEVICE_KIND_CUDA,
    memory_free_bytes=20 * GIB,
    quarantine_reason="it died",
)
GGUF = Weights(
    path=pathlib.Path("m.gguf"), format="gguf", bytes=3 * GIB, cache_bytes_per_token=1 << 20
)
EXL2 = Weights(path=pathlib.Path("m"), format="exl2", bytes=3 * GIB)
BERT = Weights(path=pathlib.Path("b"), format="bert", bytes=GIB, is_embedder=True)
BOTH = ["llamacpp", "exllamav2"]


ALL = (SMALL, LARGE, BROKEN, CPU)


def place(weights: Weights, devices=ALL, engines=BOTH, **spec):
    return fit.place(model.LoadSpec(**spec), weights, engines=engines, devices=devices)


def choose(weights: Weights, devices=ALL, engines=BOTH, **spec):
    return place(weights, devices, engines, **spec).key


def exl2(size: int) -> Weights:
    return Weights(path=pathlib.Path("m"), format="exl2", bytes=size)


def gpu(name: str, free: int) -> model.Device:
    return model.Device(device_id=name, kind=model.DEVICE_KIND_CUDA, memory_free_bytes=free)


def test_files_choose_their_engine():
    assert choose(GGUF) == WorkerKey("llamacpp", ("cpu",))
    assert choose(EXL2) == WorkerKey("exllamav2", ("gpu-b",))
    assert choose(BERT) == WorkerKey("llamacpp", ("cpu",))


def test_named_devices_make_a_group_in_one_order():
    key = choose(EXL2, device_ids=["gpu-b", "gpu-a"])

    assert key.device_ids == ("gpu-a", "gpu-b")


@pytest.mark.parametrize(
    ("weights", "arguments", "reason"),
    [
        (GGUF, {"engine": "exllamav2"}, Reason.BAD_REQUEST),
        (GGUF, {"engine": "vllm"}, Reason.BAD_REQUEST),
        (EXL2, {"engines": ["llamacpp"]}, Reason.NOT_SUPPORTED),
        (EXL2, {"devices": [CPU]}, Reason.NOT_SUPPORTED),
        (EXL2, {"devices": [BROKEN]}, Reason.NOT_SUPPORTED),
        (GGUF, {"device_ids": ["gpu-z"]}, Reason.BAD_REQUEST),
    ],
)
def test_what_cannot_run_here_says_why(weights, arguments, reason):
    with pytest.raises(FleetError) as refused:
        choose(weights, **arguments)

    assert refused.value.reason is reason


def test_the_cache_is_part_of_what_is_needed():
    small = fit.required_bytes(model.LoadSpec(max_context_tokens=1024), GGUF)
    large = fit.required_bytes(model.LoadSpec(max_context_tokens=1024, max_sequences=2), GGUF)
    half = fit.required_bytes(
        model.LoadSpec(max_context_tokens=1024, cache_format=model.CACHE_FORMAT_Q8), GGUF
    )

    assert large - small == GIB
    assert small - half == pytest.approx(GIB * (1 - 17 / 32), rel=0.02)  # 34 bytes for 32 values
    assert small > GGUF.bytes + GIB


def test_a_model_that_fits_on_one_gpu_gets_one():
    placed = place(exl2(7 * GIB))

    assert placed.key.device_ids == ("gpu-b",)
    assert placed.fits


@pytest.mark.parametrize(
    ("size", "group", "fits"),
    [
        (8 * GIB, ("gpu-b",), True),
        (12 * GIB, ("gpu-b", "gpu-d"), True),
        (17 * GIB, ("gpu-a", "gpu-b", "gpu-d"), True),
        (20 * GIB, ("gpu-a", "gpu-b", "gpu-d"), False),
    ],
)
def test_a_larger_model_gets_the_fewest_gpus_that_hold_it_together(size, group, fits):
    placed = place(exl2(size), [*ALL, gpu("gpu-d", 8 * GIB)])

    assert placed.key == WorkerKey("exllamav2", group)
    assert placed.fits is fits


def test_sums_alone_do_not_make_a_group_fit():
    """A layer is never cut in two, and every process takes some of each device for itself."""
    pair = [gpu("gpu-a", 9 * GIB), gpu("gpu-b", 9 * GIB)]

    assert place(exl2(15 * GIB), pair).fits
    assert not place(exl2(17 * GIB), pair).fits


def test_instances_of_a_divided_gpu_are_in_no_group():
    slices = [gpu("MIG-a", 6 * GIB), gpu("MIG-b", 6 * GIB), gpu("GPU-0", 5 * GIB)]

    assert choose(exl2(4 * GIB), slices).device_ids == ("MIG-a",)
    assert not place(exl2(9 * GIB), slices).fits
    assert place(exl2(8 * GIB), [*slices, gpu("GPU-1", 5 * GIB)]).key.device_ids == (
        "GPU-0",
        "GPU-1",
    )
    with pytest.raises(FleetError, match="one MIG instance") as refused:
        choose(exl2(GIB), slices, device_ids=["MIG-a", "MIG-b"])
    assert refused.value.reason is Reason.BAD_REQUEST


def test_named_devices_are_judged_together():
    assert place(exl2(9 * GIB), device_ids=["gpu-a", "gpu-b"]).fits
    assert not place(exl2(9 * GIB), device_ids=["gpu-b"]).fits


def test_each_device_gets_its_verdict():
    held = gpu("held", 6 * GIB)
    held.memory_reserved_bytes = 2 * GIB
    devices = [SMALL, LARGE, BROKEN, held, CPU]
    placed = place(exl2(5 * GIB), devices)

    reasons = {one.device_id: fit.verdict(placed, model.LoadSpec(), one) for one in devices}

    assert reasons["gpu-b"] == ""
    assert "3328 MiB free; 5184 MiB are needed" in reasons["gpu-a"]
    assert "it died" in reasons["gpu-c"]
    assert "3328 MiB free" in reasons["held"]
    assert "does not load there" in reasons["cpu"]


def test_all_devices_of_a_group_will_do():
    placed = place(exl2(10 * GIB), [SMALL, LARGE])

    assert [fit.verdict(placed, model.LoadSpec(), one) for one in (SMALL, LARGE)] == ["", ""]


def test_other_devices_than_the_named_are_out():
    spec = model.LoadSpec(device_ids=["gpu-a"])
    placed = fit.place(spec, exl2(1), engines=BOTH, devices=ALL)

    reasons = [fit.verdict(placed, spec, one) for one in (SMALL, LARGE)]

    assert reasons == ["", "It was not asked for."]


@pytest.mark.parametrize(
    ("free", "words"), [(4 * GIB, "context of 768"), (GIB, "after another model"), (0, "another")]
)
def test_advice_is_the_cheapest_change(free, words):
    assert words in fit.advice(model.LoadSpec(), GGUF, free)


def test_a_gguf_file_counts_the_whole_trained_context():
    weights = dataclasses.replace(GGUF, bytes=0, max_context_tokens=8192)
    fixed = fit.required_bytes(model.LoadSpec(), dataclasses.replace(weights, max_context_tokens=0))

    def cache(**spec) -> int:
        return fit.required_bytes(model.LoadSpec(**spec), weights) - fixed

    assert cache() == 8 * GIB
    assert cache(max_context_tokens=1 << 20, max_sequences=2) == 16 * GIB
    assert cache(max_context_tokens=1024, cache_tokens=8192) == GIB
    assert cache(max_sequences=4, cache_tokens=16384) == 16 * GIB


def test_an_engine_may_take_the_open_sequences_and_never_more_than_is_free():
    weights = dataclasses.replace(GGUF, max_context_tokens=1024)
    roomy = model.Device(device_id="cpu", memory_free_bytes=100 * GIB)

    placed = place(weights, [roomy])

    assert placed.most_bytes == placed.required_bytes + 3 * GIB
    assert place(weights, [CPU], max_sequences=2).most_bytes == placed.required_bytes + GIB
    assert place(weights, [CPU], max_sequences=90).most_bytes == CPU.memory_free_bytes
