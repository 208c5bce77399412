"""From protobuf to values: nothing below this package knows the messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from cortex.v1 import generation_pb2, model_pb2, neuron_service_pb2
from services.backplane import protobuf_time
from services.registry.catalogue.profile import SamplingDefaults
from services.registry.fleet.records import (
    Device,
    GpuLayers,
    Instance,
    InstanceState,
    LoadProgress,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
    Worker,
)

STATES: Final = {
    model_pb2.INSTANCE_STATE_LOADING: InstanceState.LOADING,
    model_pb2.INSTANCE_STATE_READY: InstanceState.READY,
    model_pb2.INSTANCE_STATE_DRAINING: InstanceState.DRAINING,
    model_pb2.INSTANCE_STATE_UNLOADING: InstanceState.UNLOADING,
    model_pb2.INSTANCE_STATE_RECOVERING: InstanceState.RECOVERING,
    model_pb2.INSTANCE_STATE_FAILED: InstanceState.FAILED,
}
_KINDS: Final = {
    model_pb2.DEVICE_KIND_CUDA: "cuda",
    model_pb2.DEVICE_KIND_GPU: "gpu",
    model_pb2.DEVICE_KIND_CPU: "cpu",
}
CAPABILITIES: Final = {
    name: model_pb2.Capability.Value(f"CAPABILITY_{name.upper()}")
    for name in ("chat", "completion", "embedding", "tools", "reasoning", "vision")
}
_SAMPLING: Final = tuple(field.name for field in dataclasses.fields(SamplingDefaults))
_CAPABILITY_NAMES: Final = {value: name for name, value in CAPABILITIES.items()}
PHASES: Final = {
    name: model_pb2.LoadPhase.Value(f"LOAD_PHASE_{name.upper()}")
    for name in ("resolving", "downloading", "loading", "warming")
}
_PHASE_NAMES: Final = {value: name for name, value in PHASES.items()}


def identity(message: neuron_service_pb2.NeuronIdentity) -> NeuronIdentity:
    """Who a neuron is: name, process, address, labels and engines."""
    return NeuronIdentity(
        name=message.name,
        incarnation_id=message.incarnation_id,
        address=message.address,
        labels=dict(message.labels),
        engines=tuple(message.engines),
        version=message.version,
        metrics_address=message.metrics_address,
    )


def report(message: neuron_service_pb2.NeuronReport) -> NeuronReport:
    """What a neuron holds now: devices, instances, files on disk, worker processes."""
    return NeuronReport(
        message.sequence,
        devices=tuple(_device(d) for d in message.devices),
        instances=tuple(instance(i) for i in message.instances),
        stored=tuple(_stored(s) for s in message.stored_models),
        resident={
            name: min(1.0, files.resident_bytes / files.bytes)
            for files in message.stored_models
            for name in (files.model, files.source)
            if name and files.bytes and files.resident_bytes
        },
        workers=tuple(_worker(w) for w in message.workers),
        is_draining=message.draining,
        unfinished=tuple(one.origin for one in message.unfinished_downloads),
    )


def _device(message: model_pb2.Device) -> Device:
    return Device(
        message.device_id,
        _KINDS.get(message.kind, ""),
        message.memory_total_bytes,
        message.memory_free_bytes,
        reserved_bytes=message.memory_reserved_bytes,
        quarantine_reason=message.quarantine_reason,
        name=message.name,
    )


def instance(message: model_pb2.Instance) -> Instance:
    """One loaded instance."""
    used = message.last_used_at if message.HasField("last_used_at") else message.loaded_at
    return Instance(
        message.instance_id,
        message.spec.model,
        STATES.get(message.state, InstanceState.UNKNOWN),
        {m.device_id: m.bytes for m in message.memory},
        active_requests=message.active_requests,
        queued_requests=message.queued_requests,
        max_active_requests=message.max_active_requests,
        config_revision=message.spec.config_revision,
        # silence means servable
        servable=not message.HasField("servable") or message.servable,
        last_used=protobuf_time.seconds(used),
        load_seconds=protobuf_time.seconds(message.load_duration),
        max_context_tokens=message.max_context_tokens,
        capabilities=capability_names(message.capabilities),
        progress=progress(message.load_progress) if message.HasField("load_progress") else None,
        state_reason=message.state_reason,
        weights=_stored(message.weights) if message.HasField("weights") else None,
        device_ids=tuple(message.spec.device_ids),
        sampling=_sampling(message.spec.default_sampling),
        layers_left=message.layers_left,
    )


def _sampling(message: generation_pb2.Sampling) -> SamplingDefaults:
    told = {field.name: value for field, value in message.ListFields()}
    return SamplingDefaults(**{name: told.get(name) for name in _SAMPLING})


def capability_names(values: Iterable[model_pb2.Capability.ValueType]) -> tuple[str, ...]:
    """Capabilities by name; those of a newer contract are left out."""
    return tuple(_CAPABILITY_NAMES[v] for v in values if v in _CAPABILITY_NAMES)


def _stored(message: model_pb2.StoredModel) -> StoredModel:
    return StoredModel(
        message.model,
        message.source,
        message.bytes,
        capabilities=capability_names(message.capabilities),
        max_context_tokens=message.max_context_tokens,
        format=message.format,
        architecture=message.architecture,
        quantization=message.quantization,
        parameter_size=message.parameter_size,
        fingerprint=message.fingerprint,
        modified=protobuf_time.seconds(message.modified_at),
        cache_bytes_per_token=message.cache_bytes_per_token,
        default_cache_tokens=message.default_cache_tokens,
        origin=message.origin,
        gpu_layers=_gpu_layers(message.gpu_layers),
    )


def _gpu_layers(message: model_pb2.GpuLayers) -> GpuLayers | None:
    """None where it is not told, or makes no sense: nothing could be computed by it."""
    if not 0 < message.all >= message.most:
        return None
    return GpuLayers(message.most, message.all, message.bytes, message.host_bytes)


def _worker(message: neuron_service_pb2.Worker) -> Worker:
    running = message.state == neuron_service_pb2.WORKER_STATE_RUNNING
    return Worker(tuple(message.device_ids), message.load_cycles, running)


def progress(message: model_pb2.LoadProgress) -> LoadProgress:
    """How far a load has come."""
    return LoadProgress(
        _PHASE_NAMES.get(message.phase, ""),
        message.bytes_done,
        message.bytes_total,
        message.modules_done,
        message.modules_total,
    )
