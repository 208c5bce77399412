"""The list of all models: the catalogue, and what is loaded without standing in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.dialects.lookup import ListedModel

_Placed = tuple[str, registry.Neuron, model_pb2.Instance]


def list_models(
    catalogue: Mapping[str, registry.CatalogueModel], neurons: Mapping[str, registry.Neuron]
) -> Sequence[ListedModel]:
    """Every model that a client may name: sorted by name, those that cannot chat behind the others.

    Clients that are told no model take the first one.
    """
    placed: dict[str, list[_Placed]] = {}
    for name in sorted(neurons):
        if not neurons[name].lost:
            for instance in neurons[name].report.instances:
                instances = placed.setdefault(instance.spec.model, [])
                instances.append((name, neurons[name], instance))
    names = sorted({*catalogue, *placed})
    empty = registry.CatalogueModel()
    listed = [_listed(n, catalogue.get(n, empty), placed.get(n, [])) for n in names]
    return sorted(listed, key=_cannot_chat)


def _cannot_chat(one: ListedModel) -> bool:
    """What it can do is known, and chatting is no part of it."""
    return bool(one.capabilities) and model_pb2.CAPABILITY_CHAT not in one.capabilities


def _listed(name: str, entry: registry.CatalogueModel, placed: Sequence[_Placed]) -> ListedModel:
    served = [(n, i) for _, n, i in placed if i.state == model_pb2.INSTANCE_STATE_READY]
    ready = [instance for _, instance in served]
    capabilities = {*entry.capabilities, *(c for i in ready for c in i.capabilities)}
    contexts = [i.max_context_tokens for i in ready if i.max_context_tokens]
    return ListedModel(
        model=name,
        aliases=tuple(entry.aliases),
        created_unix_seconds=entry.created_unix_seconds,
        description=entry.description,
        capabilities=tuple(sorted(capabilities)),
        max_context_tokens=min(contexts, default=entry.max_context_tokens or None),
        max_output_tokens=entry.max_output_tokens or None,
        price=entry.price if entry.HasField("price") else None,
        is_loaded=bool(ready),
        locations=tuple((neuron, instance.state) for neuron, _, instance in placed),
        feasible_neurons=tuple(entry.feasible_neurons),
        weights=_weights(entry, ready),
        memory_bytes=max((_memory(*one) for one in served), default=(0, 0)),
    )


def _weights(
    entry: registry.CatalogueModel, ready: Sequence[model_pb2.Instance]
) -> model_pb2.StoredModel | None:
    """The files of a loaded instance; else those that the registry was told of last."""
    loaded = next((one.weights for one in ready if one.HasField("weights")), None)
    return loaded or (entry.weights if entry.HasField("weights") else None)


def _memory(neuron: registry.Neuron, instance: model_pb2.Instance) -> tuple[int, int]:
    """Bytes that one instance takes: in all, and on GPUs."""
    gpus = {
        device.device_id
        for device in neuron.report.devices
        if device.kind in {model_pb2.DEVICE_KIND_CUDA, model_pb2.DEVICE_KIND_GPU}
    }
    return (
        sum(held.bytes for held in instance.memory),
        sum(held.bytes for held in instance.memory if held.device_id in gpus),
    )
