"""Which of several quantisations of one model is loaded where nobody names one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.neuron.weights.inspect import Weights

# Twice the size of eight bits, and hardly anything to show for it.
_UNPACKED: Final = frozenset({"F32", "F16", "BF16"})
_GPUS: Final = frozenset({model.DEVICE_KIND_CUDA, model.DEVICE_KIND_GPU})


def preferred(
    several: Sequence[Weights],
    devices: Sequence[model.Device],
    needed: Callable[[Weights], int],
) -> Weights:
    """The best quantisation for this host, by what its devices hold when they are empty.

    So that the answer is the same whatever is loaded just now. The first rule that finds one:

    1. The largest that all GPUs together hold, with its cache.
    2. The largest that the host holds.
    3. The smallest.

    Those that are not packed (16 bits and more) are looked at only where there are no others.

    Args:
        several: of one model; at least one.
        devices: of this host.
        needed: bytes that a load of weights takes.
    """
    packed = [one for one in several if one.quantization not in _UNPACKED]
    by_size = sorted(packed or several, key=lambda one: one.bytes, reverse=True)
    gpus = sum(_room(device) for device in devices if device.kind in _GPUS)
    host = sum(_room(device) for device in devices if device.kind == model.DEVICE_KIND_CPU)
    for room in (gpus, host):
        for one in by_size:
            if needed(one) <= room:
                return one
    return by_size[-1]


def _room(device: model.Device) -> int:
    return max(0, device.memory_total_bytes - device.memory_reserved_bytes)
