from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.instances import fit
from services.neuron.instances.division import room
from services.neuron.supervisor.listener import WorkerKey
from services.neuron.weights.inspect import Weights
from services.neuron.weights.tensor_shape import TensorShape

GIB = 1 << 30
SHAPE = TensorShape("LlamaForCausalLM", "safetensors", 32, 8, 128, 14336)
TENSOR, AUTO = model.PARALLEL_TENSOR, model.PARALLEL_AUTO


def gpu(number: int, free: int = 22, *, name: str = "RTX 4090") -> model.Device:
    return model.Device(
        device_id=f"GPU-{number}",
        name=name,
        kind=model.DEVICE_KIND_CUDA,
        memory_total_bytes=24 * GIB,
        memory_free_bytes=free * GIB,
    )


FOUR = [gpu(number) for number in range(4)]
MIXED = [gpu(0), gpu(1, name="RTX 3090")]


def weights(size: int, **fields: Any) -> Weights:
    known: dict[str, Any] = {"format": "safetensors", "tensor_shape": SHAPE, **fields}
    return Weights(path=pathlib.Path("m"), bytes=size * GIB, **known)


def place(of: Weights, devices: list[model.Device], **spec: Any) -> fit.FitResult:
    return fit.place(model.LoadSpec(**spec), of, engines=["exllamav2"], devices=devices)


def refused(of: Weights, devices: list[model.Device], **spec: Any) -> str:
    with pytest.raises(FleetError) as caught:
        place(of, devices, parallel=TENSOR, **spec)
    assert caught.value.reason is Reason.NOT_SUPPORTED
    assert caught.value.field == "spec.parallel"
    assert 'parallel = "tensor"' in caught.value.message
    assert 'parallel = "layers"' in caught.value.message
    return caught.value.message


def test_the_fewest_gpus_that_hold_it_take_equal_parts():
    placed = place(weights(30), FOUR, parallel=TENSOR)

    assert placed.key == WorkerKey("exllamav2", ("GPU-0", "GPU-1"), is_divided=True)
    assert placed.fits
    assert len(set(placed.shares.values())) == 1
    assert 15 * GIB < placed.shares["GPU-0"] < 16 * GIB


def test_a_small_model_is_divided_all_the_same_where_that_is_asked_for():
    assert place(weights(3), FOUR, parallel=TENSOR).key.device_ids == ("GPU-0", "GPU-1")


def test_a_number_of_gpus_that_does_not_divide_is_passed_over():
    placed = place(weights(50), FOUR, parallel=TENSOR)

    assert len(placed.key.device_ids) == 4  # three hold it, and do not divide 32 heads


def test_the_fullest_gpu_decides():
    devices = [gpu(0, 22), gpu(1, 22), gpu(2, 8), gpu(3, 8)]

    assert place(weights(30), devices, parallel=TENSOR).key.device_ids == ("GPU-0", "GPU-1")
    assert not place(weights(60), devices, parallel=TENSOR).fits


def test_named_gpus_are_taken_as_they_are():
    placed = place(weights(3), FOUR, parallel=TENSOR, device_ids=["GPU-3", "GPU-1"])

    assert placed.key == WorkerKey("exllamav2", ("GPU-1", "GPU-3"), is_divided=True)


def test_what_is_promised_is_taken_from_each_alike():
    placed = place(weights(30), [gpu(0, 22), gpu(1, 18)], parallel=TENSOR)

    assert placed.shares["GPU-0"] == placed.shares["GPU-1"]


def test_auto_divides_what_one_gpu_does_not_hold():
    assert place(weights(3), FOUR, parallel=AUTO).key == WorkerKey("exllamav2", ("GPU-0",))
    assert place(weights(30), FOUR, parallel=AUTO).key.is_divided


@pytest.mark.parametrize(
    ("of", "devices"),
    [
        (weights(30), MIXED),
        (weights(30, tensor_shape=dataclasses.replace(SHAPE, kv_heads=1)), FOUR),
        (weights(30, format="exl2", tensor_shape=dataclasses.replace(SHAPE, format="exl2")), FOUR),
    ],
)
def test_auto_falls_back_to_whole_layers(of, devices):
    key = place(of, devices, parallel=AUTO).key

    assert not key.is_divided
    assert len(key.device_ids) == 2


@pytest.mark.parametrize("parallel", [model.PARALLEL_UNSPECIFIED, model.PARALLEL_LAYERS])
def test_layers_stay_whole_unless_something_else_is_asked_for(parallel):
    key = place(weights(30), FOUR, parallel=parallel).key

    assert (len(key.device_ids), key.is_divided) == (2, False)


def test_heads_that_do_not_divide_are_refused():
    shape = dataclasses.replace(SHAPE, heads=9, kv_heads=3)

    said = refused(weights(3, tensor_shape=shape), FOUR[:2])

    assert "num_attention_heads is 9, which 2 GPUs do not divide" in said


def test_gpus_of_several_kinds_are_refused():
    said = refused(weights(3), MIXED, device_ids=["GPU-0", "GPU-1"])

    assert "RTX 3090 (24576 MiB), RTX 4090 (24576 MiB)" in said


def test_one_gpu_is_refused():
    assert "1 is named" in refused(weights(3), FOUR, device_ids=["GPU-0"])
    assert "1 is in use here" in refused(weights(3), FOUR[:1])


@pytest.mark.parametrize(
    ("spec", "said"),
    [({"draft_source": "path:/d"}, "draft"), ({"adapters": ["path:/a"]}, "adapters")],
)
def test_what_goes_with_whole_layers_alone_is_named(spec, said):
    assert f"with {said}" in refused(weights(3), FOUR, **spec)


def test_a_gguf_model_is_refused():
    with pytest.raises(FleetError, match="reads no gguf files"):
        fit.place(
            model.LoadSpec(parallel=TENSOR),
            weights(3, format="gguf"),
            engines=["llamacpp"],
            devices=FOUR,
        )


def test_a_gpu_that_is_too_full_is_told_what_its_part_is():
    placed = place(weights(60), FOUR[:2], parallel=TENSOR, device_ids=["GPU-0", "GPU-1"])

    said = fit.verdict(placed, model.LoadSpec(), FOUR[0])

    assert (
        said
        == f"It has {room(FOUR[0]) >> 20} MiB free; {placed.shares['GPU-0'] >> 20} MiB are needed."
    )
