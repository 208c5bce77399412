"""How a GGUF model is divided between GPUs and the host. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
        shares: bytes by device id.
        fits: as far as can be told before.
        why: in a sentence.
    """

    device_ids: tuple[str, ...]
    gpu_layers: int | None
    shares: Mapping[str, int]
    fits: bool
    why: str


def divide(
    weights: Weights,
    needed: int,
    *,
    gpus: Sequence[model.Device],
    host: model.Device | None,
    most_layers: int | None,
) -> Division:
    """Divides a model.

    1. The whole model goes to one GPU that holds it, the one with the most room; else to the
       fewest that hold it together.
    2. Else as many layers as the GPUs hold go there, and the rest to the host, if that has room
       for them. Every layer counts the same, with its part of the cache.
    3. Else the host takes all, if it has room for it.
    4. Else it does not fit.

    Args:
        weights: of the model.
        needed: bytes that it takes in all, with its cache and buffers.
        gpus: that layers can be put on.
        host: the CPU; None keeps everything on the GPUs.
        most_layers: cap on the layers on GPUs; None is as many as fit; 0 none.
    """
    usable = sorted((gpu for gpu in gpus if not gpu.quarantine_reason), key=room, reverse=True)
    layers = weights.layers + 1
    wanted = layers if most_layers is None else min(most_layers, layers)
    host_room = 0 if host is None else room(host)
    if wanted >= layers:
        for count in range(1, len(usable) + 1):
            group = usable[:count]
            if held(group) >= needed:
                names = tuple(gpu.device_id for gpu in group)
                why = f"All {layers} layers fit on {', '.join(names)}."
                return Division(names, None, _spread(group, needed), fits=True, why=why)
    layer = max(1, needed // layers)
    # not always all of them: one that is nearly full adds less than is lost on it
    most = max((held(usable[:n]) for n in range(1, len(usable) + 1)), default=0)
    fitting = min(wanted, most // layer)
    rest = needed - fitting * layer
    if fitting and host is not None and host_room >= rest:
        # the fewest, as each adds a hop
        count = next(n for n in range(1, len(usable) + 1) if held(usable[:n]) >= fitting * layer)
        group = usable[:count]
        names = tuple(gpu.device_id for gpu in group)
        cause = "gpu_layers says so" if fitting == wanted < layers else "no more fit"
        why = f"{fitting} of {layers} layers are on {', '.join(names)}, as {cause}."
        shares = {**_spread(group, fitting * layer), host.device_id: rest}
        return Division((*names, CPU), fitting, shares, fits=True, why=why)
    if host is not None and host_room >= needed:
        why = "No layer fits on a GPU." if wanted and usable else "It runs on the CPU."
        return Division((CPU,), 0, {CPU: needed}, fits=True, why=why)
    everywhere = [*(usable if wanted else ()), *([] if host is None else [host])]
    total = sum(room(device) for device in everywhere) >> 20
    why = f"All devices together have {total} MiB free; {needed >> 20} MiB are needed."
    names = tuple(device.device_id for device in everywhere)
    return Division(names, None if host is None else fitting, {}, fits=False, why=why)


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
