from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from services.neuron.instances.division import Division, divide
from services.neuron.weights.inspect import Weights

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
    return divide(MODEL, NEEDED, gpus=gpus, host=cpu or host(8000), most_layers=most_layers)


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
    assert found.why == "4 of 10 layers are on a, as no more fit."


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
