from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.instances.division import Division, GgufRules, divide
from services.neuron.weights.inspect import Weights
from services.neuron.weights.layer_bytes import LayerBytes

MIB = 1 << 20
MODEL = Weights(path=pathlib.Path("m.gguf"), format="gguf", bytes=900 * MIB, layers=9)
NEEDED = 1000 * MIB  # 100 MiB for each of nine blocks and the output


def gpu(name: str, free: int, quarantine_reason: str = "") -> model.Device:
    return model.Device(
        device_id=name,
        kind=model.DEVICE_KIND_GPU,
        memory_free_bytes=free * MIB,
        quarantine_reason=quarantine_reason,
    )


def host(free: int) -> model.Device:
    kind = model.DEVICE_KIND_CPU
    return model.Device(device_id="cpu", kind=kind, memory_free_bytes=free * MIB)


def divided(
    *gpus: model.Device, cpu: model.Device | None = None, most_layers: int | None = None
) -> Division:
    rules = GgufRules(most_layers=most_layers)
    return divide(MODEL, NEEDED, gpus=gpus, host=cpu or host(8000), rules=rules)


def mixture(**facts: Any) -> Weights:
    """Four blocks of 200 MiB, 150 of which are their experts', embeddings that the output shares."""
    layers = LayerBytes(
        blocks=(200 * MIB,) * 4,
        experts=(150 * MIB,) * 4,
        output=0,
        shared=100 * MIB,
        host=100 * MIB,
    )
    return dataclasses.replace(MODEL, layers=4, layer_bytes=layers, **facts)


def test_embeddings_stay_on_the_host_and_an_output_that_shares_them_has_a_copy() -> None:
    found = divide(mixture(), 950 * MIB, gpus=[gpu("a", 1000)], host=host(8000), rules=GgufRules())

    assert (found.device_ids, found.gpu_layers) == (("a",), None)
    assert found.shares == {"a": (4 * 200 + 100 + 50) * MIB, "cpu": 100 * MIB}
    assert found.why == "All 5 layers fit on a, and 100 MiB on the host."


def test_experts_that_are_kept_from_the_gpu_leave_room_for_all_layers() -> None:
    rules = GgufRules(cpu_experts=99)

    found = divide(mixture(), 950 * MIB, gpus=[gpu("a", 400)], host=host(8000), rules=rules)

    assert (found.device_ids, found.gpu_layers, found.layers_left) == (("a",), None, 0)
    assert found.shares == {"a": (4 * 50 + 100 + 50) * MIB, "cpu": (100 + 4 * 150) * MIB}
    assert "the experts of 4 blocks" in found.why


def test_a_whole_load_needs_room_on_the_host_for_what_is_never_on_a_gpu() -> None:
    found = divide(mixture(), 950 * MIB, gpus=[gpu("a", 1000)], host=host(90), rules=GgufRules())

    assert not found.fits


def test_placement_is_told_what_goes_to_gpus_and_what_to_the_host() -> None:
    told = GgufRules(gpus={"a"}, cpu_experts=2).gpu_layers_of(mixture())
    unseen = GgufRules(has_gpu=True).gpu_layers_of(mixture())
    capped = GgufRules(gpus={"a"}, most_layers=2).gpu_layers_of(mixture())
    none = GgufRules(gpus={"a"}).gpu_layers_of(mixture(is_embedder=True))

    assert told == model.GpuLayers(
        most=5, all=5, bytes=(4 * 200 + 100 - 2 * 150) * MIB, host_bytes=400 * MIB
    )
    assert unseen is not None
    assert (unseen.most, unseen.bytes) == (0, 0)
    assert unseen.host_bytes == 900 * MIB
    assert capped is not None
    assert (capped.most, capped.bytes) == (2, 300 * MIB)
    assert none is not None
    assert none.most == 0
    others = Weights(path=pathlib.Path("m"), format="exl2", bytes=1)
    assert GgufRules().gpu_layers_of(others) is None


def test_a_model_that_fits_goes_whole_to_the_gpu_with_the_most_room() -> None:
    found = divided(gpu("a", 1100), gpu("b", 1500))

    assert (found.device_ids, found.gpu_layers, found.fits) == (("b",), None, True)
    assert found.shares == {"b": NEEDED}


def test_a_larger_one_goes_whole_to_the_fewest_gpus_that_hold_it() -> None:
    found = divided(gpu("a", 300), gpu("b", 700), gpu("c", 600))

    assert (found.device_ids, found.gpu_layers) == (("b", "c"), None)
    assert sum(found.shares.values()) == pytest.approx(NEEDED, abs=2)


def test_what_the_gpus_do_not_hold_stays_with_the_cpu() -> None:
    found = divided(gpu("a", 450))

    assert (found.device_ids, found.gpu_layers, found.fits) == (("a", "cpu"), 4, True)
    assert found.shares == {"a": 400 * MIB, "cpu": 600 * MIB}
    assert found.why == "4 of 10 layers are on a, as no more fit, and 600 MiB on the host."
    assert found.layers_left == 6


def test_gpus_that_are_full_take_no_layers_from_those_that_are_not() -> None:
    found = divided(gpu("a", 950), gpu("b", 0), gpu("c", 0), gpu("d", 0))

    assert (found.device_ids, found.gpu_layers) == (("a", "cpu"), 9)


def test_a_cap_on_layers_holds() -> None:
    found = divided(gpu("a", 5000), most_layers=3)

    assert (found.device_ids, found.gpu_layers) == (("a", "cpu"), 3)
    assert "gpu_layers says so" in found.why
    assert divided(gpu("a", 5000), most_layers=0).device_ids == ("cpu",)
    assert divided(gpu("a", 5000), most_layers=10).gpu_layers is None


def test_a_gpu_that_is_out_of_use_takes_nothing() -> None:
    assert divided(gpu("a", 5000, quarantine_reason="it died")).device_ids == ("cpu",)


def test_a_gpu_too_small_for_a_layer_leaves_the_cpu() -> None:
    found = divided(gpu("a", 50))

    assert (found.device_ids, found.why) == (("cpu",), "No layer fits on a GPU.")


def test_a_model_too_large_for_all_together_says_so_with_numbers() -> None:
    found = divided(gpu("a", 300), cpu=host(500))

    assert not found.fits
    assert found.why == "All devices together have 800 MiB free; 1000 MiB are needed."
