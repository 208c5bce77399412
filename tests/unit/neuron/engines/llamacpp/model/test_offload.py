from services.neuron.engine_api.model import Offload
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import TensorOverride
from services.neuron.engines.llamacpp.model.offload import Placement


def test_experts_of_more_layers_than_there_are_are_those_of_all(library: Library) -> None:
    placement = Placement(library, Offload(cpu_experts=300_000))
    params = library.model_default_params()

    placement.fill(params)

    pattern = TensorOverride.from_address(params.tensor_buft_overrides).pattern
    assert b"|999|" in pattern
    assert len(pattern) < 10_000
