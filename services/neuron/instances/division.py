"""How a GGUF model is divided between GPUs and the host. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.neuron.devices.inventory import CPU
from services.neuron.weights.inspect import Weights

LARGEST_LAYER: Final = 1 / 32
"""Of what a group holds, so much is lost on each device: no layer is cut in two."""
# A process's context on a GPU, and what its kernels and its allocator take there.
_CUDA_OVERHEAD_BYTES: Final = 768 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Division:
    """Where a model's layers go.

    Attributes:
        device_ids: that take part, the CPU among them where layers stay there.
        gpu_layers: on GPUs, the output counted as one; None is all; 0 none.
        layers_left: on the host for lack of room on GPUs.
        shares: bytes by device id, the host's among them wherever the layers are.
        fits: as far as can be told before.
        why: in a sentence.
    """

    device_ids: tuple[str, ...]
    gpu_layers: int | None
    shares: Mapping[str, int]
    fits: bool
    why: str
    layers_left: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class DividedBytes:
    """Bytes of a load on GPUs and on the host, as a function of how many layers are on GPUs.

    Attributes:
        weights: of the model.
        needed: bytes that it takes in all, with its cache and buffers.
        cpu_experts: of so many blocks, from the first, the experts stay on the CPU.
    """

    weights: Weights
    needed: int
    cpu_experts: int = 0

    @property
    def layers(self) -> int:
        """Number of layers, the output counted as one."""
        return self.weights.layers + 1

    def on_gpus(self, layers: int) -> int:
        """Bytes on all GPUs together: weights, and cache and buffers by the number of layers."""
        known = self.weights.layer_bytes
        weights = self.weights.bytes * layers // self.layers
        if known.count == self.layers:
            weights = known.on_gpus(layers, cpu_experts=self.cpu_experts)
        return weights + (self.needed - self.weights.bytes) * layers // self.layers

    def on_host(self, layers: int) -> int:
        """Bytes in the host's memory."""
        shared = self.weights.layer_bytes.shared if layers else 0
        return max(0, self.needed + shared - self.on_gpus(layers))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GgufRules:
    """The settings and devices by which this neuron divides GGUF models.

    Attributes:
        gpus: ids of devices that llama.cpp can put layers on.
        most_layers: cap on a model's layers on GPUs; None is as many as fit; 0 none.
        cpu_experts: of so many blocks, from the first, the experts stay on the CPU.
        has_gpu: a GPU is here, whoever sees it.
    """

    gpus: Collection[str] = ()
    most_layers: int | None = None
    cpu_experts: int = 0
    has_gpu: bool = False

    def gpu_layers_of(self, weights: Weights) -> model.GpuLayers | None:
        """How many layers of a GGUF model could go to GPUs; None for other formats."""
        if weights.format != "gguf":
            return None
        parts = DividedBytes(weights, weights.bytes, self.cpu_experts)
        most = parts.layers if self.most_layers is None else min(self.most_layers, parts.layers)
        if weights.is_embedder or (self.has_gpu and not self.gpus):
            most = 0
        return model.GpuLayers(
            most=most, all=parts.layers, bytes=parts.on_gpus(most), host_bytes=parts.on_host(most)
        )


def division_of(
    spec: model.LoadSpec,
    weights: Weights,
    needed: int,
    *,
    devices: Mapping[str, model.Device],
    rules: GgufRules,
) -> Division:
    """The division of a load, between the devices that it names or all that are here.

    Args:
        spec: what was asked for.
        weights: of the model; encoders go to the CPU.
        needed: bytes that it takes in all, with its cache and buffers.
        devices: those that are here, by id.
        rules: of this neuron.
    """
    named = set(spec.device_ids)
    is_embedder = spec.embedding or weights.is_embedder
    usable = [
        device
        for name, device in devices.items()
        if name in rules.gpus and (not named or name in named) and not is_embedder
    ]
    unusable = [device for name, device in devices.items() if name in named - {CPU, *rules.gpus}]
    if unusable and not usable:
        # the named devices' worker, which computes on the CPU: nothing else was asked for
        names = tuple(dict.fromkeys(spec.device_ids))
        why = f"llama.cpp sees no {unusable[0].device_id}: it runs on the CPU."
        return Division(names, 0, {}, fits=held(unusable) >= needed, why=why)
    return divide(weights, needed, gpus=usable, host=devices.get(CPU), rules=rules)


def divide(
    weights: Weights,
    needed: int,
    *,
    gpus: Sequence[model.Device],
    host: model.Device | None,
    rules: GgufRules,
) -> Division:
    """Divides a model.

    1. All layers go to one GPU that holds them, the one with the most room; else to the fewest that
       hold them together. What is never on a GPU (embeddings, experts that are kept from it) must
       have room on the host.
    2. Else as many layers as the GPUs hold go there, each with its part of the cache, and the rest
       to the host, if that has room for it.
    3. Else the host takes all, if it has room for it.
    4. Else it does not fit.

    Args:
        weights: of the model.
        needed: bytes that it takes in all, with its cache and buffers.
        gpus: that layers can be put on.
        host: the CPU; None keeps everything on the GPUs.
        rules: of this neuron.
    """
    usable = sorted((gpu for gpu in gpus if not gpu.quarantine_reason), key=room, reverse=True)
    parts = DividedBytes(weights, needed, rules.cpu_experts)
    layers = parts.layers
    wanted = layers if rules.most_layers is None else min(rules.most_layers, layers)
    groups = [usable[:count] for count in range(1, len(usable) + 1)]
    for fitting in range(wanted, 0, -1):
        rest, there = parts.on_host(fitting), parts.on_gpus(fitting)
        group = next((group for group in groups if held(group) >= there), None)
        if group is None or not _host_holds(host, rest, is_whole=fitting == layers):
            continue
        return _divided(group, fitting, parts, host=host, wanted=wanted)
    if host is not None and room(host) >= needed:
        why = "No layer fits on a GPU." if wanted and usable else "It runs on the CPU."
        left = wanted if usable else 0
        return Division((CPU,), 0, {CPU: needed}, fits=True, why=why, layers_left=left)
    everywhere = [*(usable if wanted else ()), *([] if host is None else [host])]
    total = sum(room(device) for device in everywhere) >> 20
    why = f"All devices together have {total} MiB free; {needed >> 20} MiB are needed."
    names = tuple(device.device_id for device in everywhere)
    most = max(map(held, groups), default=0)
    fitting = next((n for n in range(wanted, 0, -1) if parts.on_gpus(n) <= most), 0)
    return Division(names, None if host is None else fitting, {}, fits=False, why=why)


def _host_holds(host: model.Device | None, rest: int, *, is_whole: bool) -> bool:
    if host is None:  # what little a whole load leaves there is not planned
        return is_whole
    return room(host) >= rest


def _divided(
    group: Sequence[model.Device],
    fitting: int,
    parts: DividedBytes,
    *,
    host: model.Device | None,
    wanted: int,
) -> Division:
    layers, rest = parts.layers, parts.on_host(fitting)
    names = tuple(gpu.device_id for gpu in group)
    where = ", ".join(names)
    shares = _spread(group, parts.on_gpus(fitting))
    if host is not None and rest:
        shares[host.device_id] = rest
    beside = f", and {rest >> 20} MiB on the host" if rest >> 20 else ""
    experts = min(parts.cpu_experts, parts.weights.layers)
    beside += f" (the experts of {experts} blocks among it)" if experts and rest >> 20 else ""
    if fitting == layers:
        why = f"All {layers} layers fit on {where}{beside}."
        return Division(names, None, shares, fits=True, why=why)
    cause = "gpu_layers says so" if fitting == wanted < layers else "no more fit"
    why = f"{fitting} of {layers} layers are on {where}, as {cause}{beside}."
    left = wanted - fitting
    return Division((*names, CPU), fitting, shares, fits=True, why=why, layers_left=left)


def spare(division: Division, devices: Sequence[model.Device]) -> int:
    """Bytes left for a larger cache on the devices that hold a model's layers."""
    left = {True: 0, False: 0}
    for device in devices:
        if device.device_id in division.device_ids:
            left[device.device_id == CPU] += room(device) - division.shares[device.device_id]
    return max(0, min(left[side] for side in {name == CPU for name in division.device_ids}))


def room(device: model.Device) -> int:
    """Bytes that a load may take on a device."""
    free = device.memory_free_bytes - device.memory_reserved_bytes
    if device.kind == model.DEVICE_KIND_CUDA:
        free -= _CUDA_OVERHEAD_BYTES
    return max(0, free)


def held(group: Sequence[model.Device]) -> int:
    """Bytes that a model may take on some devices together."""
    total = sum(room(device) for device in group)
    return int(total / (1 + LARGEST_LAYER * len(group))) if len(group) > 1 else total


def _spread(group: Sequence[model.Device], count: int) -> dict[str, int]:
    total = sum(room(device) for device in group) or 1
    return {device.device_id: count * room(device) // total for device in group}
