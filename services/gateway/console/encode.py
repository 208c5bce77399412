"""Messages of the contract as the console's JSON: bytes, seconds, words in lower case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron_pb2
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as registry
from services.backplane import protobuf_time

_DEVICE_KINDS: Final = {
    model_pb2.DEVICE_KIND_CPU: "cpu",
    model_pb2.DEVICE_KIND_CUDA: "cuda",
    model_pb2.DEVICE_KIND_GPU: "gpu",
}


def neuron(message: registry.Neuron) -> dict[str, Any]:
    """One member with all that it holds."""
    identity, report = message.identity, message.report
    return {
        "name": identity.name,
        "address": identity.address,
        "version": identity.version,
        "labels": dict(identity.labels),
        "engines": list(identity.engines),
        "state": _state_of(message),
        "cordoned": message.cordoned,
        "problems": list(report.problems),
        "devices": [_device(one) for one in report.devices],
        "instances": [_instance(one) for one in report.instances],
        "workers": [_worker(one) for one in report.workers],
        "stored": sorted(one.model for one in report.stored_models),
    }


def model(entry: registry.CatalogueModel) -> dict[str, Any]:
    """One model that clients may name; where it is loaded is in the neurons."""
    return {
        "model": entry.model,
        "aliases": list(entry.aliases),
        "capabilities": _capabilities(entry.capabilities),
        "context": entry.max_context_tokens or None,
        "pinned": entry.pinned,
        "configured": entry.configured,
        "description": entry.description,
        "feasible": list(entry.feasible_neurons),
        "bytes": entry.weights.bytes or None,
        "quantization": entry.weights.quantization,
        "parameters": entry.weights.parameter_size,
        "revision": entry.config_revision,
    }


def pending(placement: op.PendingPlacement) -> dict[str, Any]:
    """A model that is waited for, or that could not be loaded."""
    return {
        "model": placement.model,
        "waiters": placement.waiters,
        "since": _seconds(placement, "since"),
        "problem": placement.problem,
        "step": step(placement.step) if placement.HasField("step") else None,
    }


def step(message: registry.EnsureModelResponse) -> dict[str, Any]:
    """One step of a placement: what it waits for, and how far it is."""
    kind = message.WhichOneof("event") or "queued"
    if kind == "placed":
        placed = message.placed
        return {"kind": kind, "neuron": placed.neuron, "instance": placed.instance_id}
    if kind == "evicting":
        evicting = message.evicting
        victims = list(evicting.victim_models)
        return {
            "kind": kind, "neuron": evicting.neuron, "victims": victims,
            "eta": _seconds(evicting, "eta"),
        }  # fmt: skip
    if kind == "loading":
        loading = message.loading
        progress = _progress(loading.progress)
        return {
            "kind": kind, "neuron": loading.neuron, "progress": progress,
            "eta": _seconds(loading, "eta"),
        }  # fmt: skip
    queued = message.queued
    return {
        "kind": kind, "position": queued.position, "reason": queued.reason,
        "eta": _seconds(queued, "eta"),
    }  # fmt: skip


def explanation(message: op.ExplainPlacementResponse) -> dict[str, Any]:
    """Where a model would go and why."""
    return {
        "model": message.model,
        "verdict": _word(op.PlacementVerdict.Name(message.verdict), "PLACEMENT_VERDICT_"),
        "summary": message.summary,
        "required_bytes": message.required_bytes or None,
        "footprint_source": message.footprint_source,
        "candidates": [
            {
                "neuron": one.neuron,
                "feasible": one.feasible,
                "reason": one.reason,
                "devices": list(one.device_ids),
                "free_bytes": one.free_bytes,
                "evicts": list(one.evicted_models),
                "predicted": _seconds(one, "predicted"),
            }
            for one in message.candidates
        ],
    }


def models(catalogue: Mapping[str, registry.CatalogueModel]) -> list[dict[str, Any]]:
    """All models, by name."""
    return [model(catalogue[name]) for name in sorted(catalogue)]


def _state_of(message: registry.Neuron) -> str:
    if message.lost:
        return "lost"
    if message.report.draining:
        return "draining"
    if message.cordoned:
        return "cordoned"
    return "ready" if message.report.sequence else "joining"


def _device(device: model_pb2.Device) -> dict[str, Any]:
    return {
        "id": device.device_id,
        "name": device.name,
        "kind": _DEVICE_KINDS.get(device.kind, "unknown"),
        "total": device.memory_total_bytes,
        "free": device.memory_free_bytes,
        "reserved": device.memory_reserved_bytes,
        "utilization": device.utilization_ratio if device.HasField("utilization_ratio") else None,
        "temperature": _optional(device, "temperature_celsius"),
        "power": _optional(device, "power_watts"),
        "quarantine": device.quarantine_reason,
    }


def _instance(one: model_pb2.Instance) -> dict[str, Any]:
    return {
        "id": one.instance_id,
        "model": one.spec.model,
        "state": _word(model_pb2.InstanceState.Name(one.state), "INSTANCE_STATE_"),
        "reason": one.state_reason,
        "squeezed": one.HasField("servable") and not one.servable,
        "memory": [{"device": held.device_id, "bytes": held.bytes} for held in one.memory],
        "active": one.active_requests,
        "queued": one.queued_requests,
        "places": one.max_active_requests,
        "queue_places": one.max_queued_requests,
        "context": one.max_context_tokens or None,
        "capabilities": _capabilities(one.capabilities),
        "engine": one.engine,
        "quantization": one.weights.quantization,
        "loaded_at": _seconds(one, "loaded_at"),
        "last_used_at": _seconds(one, "last_used_at"),
        "load_seconds": _seconds(one, "load_duration"),
        "cache_used": one.cache_tokens_used,
        "cache_total": one.cache_tokens_total or None,
        "progress": _progress(one.load_progress) if one.HasField("load_progress") else None,
        "facts": dict(one.engine_facts),
        "revision": one.spec.config_revision,
    }


def _worker(worker: neuron_pb2.Worker) -> dict[str, Any]:
    return {
        "devices": list(worker.device_ids),
        "state": _word(neuron_pb2.WorkerState.Name(worker.state), "WORKER_STATE_"),
        "restarts": worker.restarts,
        "last_words": worker.last_words,
    }


def _progress(progress: model_pb2.LoadProgress) -> dict[str, Any]:
    return {
        "phase": _word(model_pb2.LoadPhase.Name(progress.phase), "LOAD_PHASE_"),
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "modules_done": progress.modules_done,
        "modules_total": progress.modules_total,
    }


def _capabilities(values: Sequence[model_pb2.Capability.ValueType]) -> list[str]:
    return [_word(model_pb2.Capability.Name(one), "CAPABILITY_") for one in sorted(values)]


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _seconds(message: Any, field: str) -> float | None:
    """A time or a duration in seconds; None where it is unset."""
    if not message.HasField(field):
        return None
    return round(protobuf_time.seconds(getattr(message, field)), 3)


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
