"""Which engine and which devices a load gets on this host. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.devices import CPU
from services.neuron.slot import SlotKey
from services.neuron.weights import Weights

# Formats that each engine reads, and whether it runs without a GPU.
_READS: Final = {
    "llamacpp": (frozenset({"gguf", "bert"}), True),
    "exllamav2": (frozenset({"safetensors", "exl2", "gptq"}), False),
}
# Room for what an engine holds besides weights and cache.
_OVERHEAD_BYTES: Final = 64 << 20
_DEFAULT_CONTEXT: Final = 4096


def choose(
    spec: model.LoadSpec,
    weights: Weights,
    *,
    engines: Sequence[str],
    devices: Sequence[model.Device],
    default_engine: str = "",
) -> SlotKey:
    """The worker that a load goes to.

    Args:
        spec: what was asked for.
        weights: what is to be loaded.
        engines: those that are here.
        devices: those that are here.
        default_engine: used where the spec names none; empty chooses by the files.

    Raises:
        FleetError: NOT_SUPPORTED or BAD_REQUEST, no engine here reads the files, or a device that
            was asked for is not here.
    """
    wanted = spec.engine or default_engine
    able = [name for name, (formats, _) in _READS.items() if weights.format in formats]
    if wanted and wanted not in able:
        raise FleetError(
            Reason.BAD_REQUEST,
            f"The engine {wanted} does not read {weights.format} files.",
            field="spec.engine",
        )
    here = [name for name in ([wanted] if wanted else able) if name in engines]
    if not here:
        raise FleetError(
            Reason.NOT_SUPPORTED,
            f"No engine here reads {weights.format} files (here: {', '.join(engines) or 'none'}).",
            field="spec.engine",
        )
    return SlotKey(here[0], _devices(spec, here[0], devices))


def required_bytes(spec: model.LoadSpec, weights: Weights) -> int:
    """Memory that a load will take, estimated from the file and the cache that was asked for."""
    context = spec.max_context_tokens or min(weights.max_context_tokens, _DEFAULT_CONTEXT)
    tokens = spec.cache_tokens or context * (spec.max_sequences or 1)
    width = {model.CACHE_FORMAT_Q8: 0.5, model.CACHE_FORMAT_Q6: 0.4, model.CACHE_FORMAT_Q4: 0.3}
    cache = tokens * weights.cache_bytes_per_token * width.get(spec.cache_format, 1.0)
    return weights.bytes + int(cache) + _OVERHEAD_BYTES


def verdicts(
    spec: model.LoadSpec, needed: int, devices: Sequence[model.Device]
) -> list[tuple[model.Device, int, str]]:
    """Each device with what is free on it and why it will not do; empty if it will."""
    judged: list[tuple[model.Device, int, str]] = []
    for device in devices:
        free = max(0, device.memory_free_bytes - device.memory_reserved_bytes)
        reason = ""
        if spec.device_ids and device.device_id not in spec.device_ids:
            reason = "It was not asked for."
        elif device.quarantine_reason:
            reason = f"It is out of use: {device.quarantine_reason}"
        elif free < needed:
            reason = f"It has {free >> 20} MiB free; {needed >> 20} MiB are needed."
        judged.append((device, free, reason))
    return judged


def advice(spec: model.LoadSpec, weights: Weights, most_free: int) -> str:
    """The cheapest change that would make a load fit; empty where none would."""
    room = most_free - weights.bytes - _OVERHEAD_BYTES
    if weights.cache_bytes_per_token and room > 0:
        tokens = room // weights.cache_bytes_per_token // (spec.max_sequences or 1)
        if tokens >= 256:  # noqa: PLR2004 - less is of no use to a chat
            return f"It would fit with a context of {tokens // 256 * 256} tokens."
    return "It would fit after another model is unloaded." if room <= 0 else ""


def _devices(spec: model.LoadSpec, engine: str, devices: Sequence[model.Device]) -> tuple[str, ...]:
    known = {device.device_id for device in devices}
    unknown = [name for name in spec.device_ids if name not in known]
    if unknown:
        raise FleetError(
            Reason.BAD_REQUEST, f"There is no device {unknown[0]} here.", field="spec.device_ids"
        )
    if spec.device_ids:
        return tuple(sorted(spec.device_ids))
    _, runs_without_gpu = _READS[engine]
    if runs_without_gpu:
        return (CPU,)
    gpus = [device for device in devices if device.kind == model.DEVICE_KIND_CUDA]
    usable = [device for device in gpus if not device.quarantine_reason]
    if not usable:
        raise FleetError(Reason.NOT_SUPPORTED, f"The engine {engine} needs a GPU.")
    return (max(usable, key=lambda device: device.memory_free_bytes).device_id,)
