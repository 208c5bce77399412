from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron import placing
from services.neuron.slot import SlotKey
from services.neuron.weights import Weights

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
GGUF = Weights(pathlib.Path("m.gguf"), "gguf", 3 * GIB, cache_bytes_per_token=1 << 20)
EXL2 = Weights(pathlib.Path("m"), "exl2", 3 * GIB)
BERT = Weights(pathlib.Path("b"), "bert", GIB, is_embedder=True)
BOTH = ["llamacpp", "exllamav2"]


def choose(weights: Weights, devices=(SMALL, LARGE, BROKEN, CPU), engines=BOTH, **spec):
    return placing.choose(model.LoadSpec(**spec), weights, engines=engines, devices=devices)


def test_files_choose_their_engine():
    assert choose(GGUF) == SlotKey("llamacpp", ("cpu",))
    assert choose(EXL2) == SlotKey("exllamav2", ("gpu-b",))
    assert choose(BERT) == SlotKey("llamacpp", ("cpu",))


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
    small = placing.required_bytes(model.LoadSpec(max_context_tokens=1024), GGUF)
    large = placing.required_bytes(model.LoadSpec(max_context_tokens=1024, max_sequences=2), GGUF)
    half = placing.required_bytes(
        model.LoadSpec(max_context_tokens=1024, cache_format=model.CACHE_FORMAT_Q8), GGUF
    )

    assert large - small == GIB
    assert small - half == GIB // 2
    assert small > GGUF.bytes + GIB


def test_each_device_gets_its_verdict():
    held = model.Device(device_id="held", memory_free_bytes=6 * GIB, memory_reserved_bytes=2 * GIB)

    judged = placing.verdicts(model.LoadSpec(), 5 * GIB, [SMALL, LARGE, BROKEN, held])

    reasons = {device.device_id: reason for device, _, reason in judged}
    assert reasons["gpu-b"] == ""
    assert "4096 MiB free; 5120 MiB are needed" in reasons["gpu-a"]
    assert "it died" in reasons["gpu-c"]
    assert "4096 MiB free" in reasons["held"]


def test_other_devices_than_the_named_are_out():
    judged = placing.verdicts(model.LoadSpec(device_ids=["gpu-a"]), 1, [SMALL, LARGE])

    assert [reason for _, _, reason in judged] == ["", "It was not asked for."]


@pytest.mark.parametrize(
    ("free", "words"), [(4 * GIB, "context of 768"), (GIB, "after another model"), (0, "another")]
)
def test_advice_is_the_cheapest_change(free, words):
    assert words in placing.advice(model.LoadSpec(), GGUF, free)
