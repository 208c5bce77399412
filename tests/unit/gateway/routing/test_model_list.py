"""What may be asked for."""

from __future__ import annotations

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.routing.model_list import list_models

READY, LOADING = model_pb2.INSTANCE_STATE_READY, model_pb2.INSTANCE_STATE_LOADING
CHAT, TOOLS = model_pb2.CAPABILITY_CHAT, model_pb2.CAPABILITY_TOOLS


def neuron(
    state: model_pb2.InstanceState.ValueType, context: int, *, lost: bool = False
) -> registry.Neuron:
    made = registry.Neuron(lost=lost)
    instance = made.report.instances.add(
        state=state, max_context_tokens=context, capabilities=[TOOLS]
    )
    instance.spec.model = "m"
    return made


def test_catalogue_and_loaded_copies_are_merged() -> None:
    entry = registry.CatalogueModel(
        model="m", aliases=["a"], capabilities=[CHAT], max_context_tokens=9000,
        price=registry.Price(input=0.0),
    )  # fmt: skip
    neurons = {"n2": neuron(READY, 4096), "n1": neuron(READY, 8192), "n3": neuron(LOADING, 1)}

    (one,) = list_models({"m": entry}, neurons)

    assert one.is_loaded
    assert one.max_context_tokens == 4096
    assert one.capabilities == (CHAT, TOOLS)
    assert one.locations == (("n1", READY), ("n2", READY), ("n3", LOADING))
    assert one.price is not None
    assert one.price.input == 0.0


def test_what_is_only_configured_is_listed_without_inventions() -> None:
    (one,) = list_models({"m": registry.CatalogueModel(model="m")}, {})

    assert not one.is_loaded
    assert one.max_context_tokens is None
    assert one.price is None


def test_models_that_cannot_chat_come_last() -> None:
    """A client that takes the first of the list gets an answer."""
    embedding = model_pb2.CAPABILITY_EMBEDDING
    can = {"a-vectors": [embedding], "b-chat": [CHAT], "c-not-known": [], "d-vectors": [embedding]}
    catalogue = {
        name: registry.CatalogueModel(model=name, capabilities=found) for name, found in can.items()
    }

    listed = [one.model for one in list_models(catalogue, {})]

    assert listed == ["b-chat", "c-not-known", "a-vectors", "d-vectors"]


def test_a_lost_neuron_holds_nothing() -> None:
    assert not list_models({}, {"n1": neuron(READY, 1, lost=True)})


def test_names_are_in_order() -> None:
    catalogue = {name: registry.CatalogueModel(model=name) for name in ("b", "a")}

    listed = list_models(catalogue, {"n1": neuron(READY, 1)})

    assert [one.model for one in listed] == ["a", "b", "m"]


def test_a_loaded_copys_files_win_over_what_the_registry_heard_last() -> None:
    entry = registry.CatalogueModel(model="m", weights=model_pb2.StoredModel(fingerprint="old"))
    cold, warm = neuron(LOADING, 1), neuron(READY, 1)
    warm.report.instances[0].weights.fingerprint = "new"

    told = [list_models({"m": entry}, {"n": one})[0].weights for one in (cold, warm)]

    assert [one.fingerprint for one in told if one is not None] == ["old", "new"]


def test_memory_on_every_kind_of_gpu_counts_as_a_gpus() -> None:
    one = neuron(READY, 1)
    one.report.devices.add(device_id="vulkan0", kind=model_pb2.DEVICE_KIND_GPU)
    one.report.instances[0].memory.add(device_id="vulkan0", bytes=7)

    (told,) = list_models({}, {"a": one})

    assert told.memory_bytes == (7, 7)


def test_memory_is_that_of_the_copy_that_holds_most() -> None:
    small, large = neuron(READY, 1), neuron(READY, 1)
    small.report.instances[0].memory.add(device_id="cpu", bytes=5)
    large.report.devices.add(device_id="gpu", kind=model_pb2.DEVICE_KIND_CUDA)
    large.report.devices.add(device_id="cpu", kind=model_pb2.DEVICE_KIND_CPU)
    large.report.instances[0].memory.add(device_id="gpu", bytes=7)
    large.report.instances[0].memory.add(device_id="cpu", bytes=1)

    (one,) = list_models({}, {"a": small, "b": large})

    assert one.memory_bytes == (8, 7)
