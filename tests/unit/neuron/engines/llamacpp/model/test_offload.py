import pytest

from services.neuron.devices.ggml import GgmlDevice
from services.neuron.engine_api.model import Offload
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import TensorOverride
from services.neuron.engines.llamacpp.model.offload import Placement, described


def test_experts_of_more_layers_than_there_are_are_those_of_all(library: Library) -> None:
    placement = Placement(library, Offload(cpu_experts=300_000))
    params = library.model_default_params()

    placement.fill(params)

    pattern = TensorOverride.from_address(params.tensor_buft_overrides).pattern
    assert b"|999|" in pattern
    assert len(pattern) < 10_000


@pytest.mark.parametrize(
    ("backends", "split"),
    [
        (("CUDA", "CUDA"), "rows"),
        (("ROCm", "ROCm"), "rows"),
        (("Vulkan", "Vulkan"), "layers"),
        (("CUDA", "Vulkan"), "layers"),
    ],
)
def test_rows_are_divided_where_all_backends_do_that(backends: tuple[str, ...], split: str) -> None:
    used = [
        GgmlDevice(f"gpu{at}", f"GPU{at}", "a card", backend, "gpu", 1 << 30, 1 << 30)
        for at, backend in enumerate(backends)
    ]

    assert described(Offload(by_rows=True), used, layers=3)["split"] == split
