"""What this host loads where nobody says: which quantisation, with which context. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.neuron.instances import fit
from services.neuron.settings import NeuronSettings
from services.neuron.weights.inspect import Weights

# Twice the size of eight bits, and hardly anything to show for it.
_UNPACKED: Final = frozenset({"F32", "F16", "BF16"})
_GPUS: Final = frozenset({model.DEVICE_KIND_CUDA, model.DEVICE_KIND_GPU})
# Tokens that hold most conversations with an agent, and fewest that are of use.
_ENOUGH: Final = 32_768
_LEAST: Final = 8_192
_STEP: Final = 1_024
# Of a device, for what an engine holds beside weights and cache; at most the second.
_OVERHEAD_SHARE: Final = 0.125
_MOST_OVERHEAD_BYTES: Final = 256 << 20
# What the cache of one sequence may take where the whole context does not fit.
_SHARE: Final = 0.5


class LoadDefaults:
    """Fills in what a load leaves open, by the settings and by what the devices hold when empty.

    So that the answers are the same whatever is loaded just now.
    """

    def __init__(
        self, settings: NeuronSettings, devices: Callable[[], Sequence[model.Device]]
    ) -> None:
        """Decides nothing yet.

        Args:
            settings: the neuron's.
            devices: of this host.
        """
        self._settings = settings
        self._devices = devices

    def settled(self, spec: model.LoadSpec, weights: Weights) -> model.LoadSpec:
        """A copy of a load's spec in which what the caller left open is filled in.

        The context is the lesser of the caller's and the settings', where both name one.
        """
        return self._settled(spec, open_context(weights, self._devices()))

    def cache_tokens(self, weights: Weights) -> int:
        """Tokens of cache for a load of these weights where the caller asks for nothing."""
        return fit.cache_tokens(self.settled(model.LoadSpec(), weights), weights)

    def preferred(self, several: Sequence[Weights]) -> Weights:
        """The best of several quantisations for this host, with a context that does for most."""
        spec = self._settled(model.LoadSpec(), _ENOUGH)
        return preferred(several, self._devices(), lambda one: fit.required_bytes(spec, one))

    def _settled(self, spec: model.LoadSpec, context: int) -> model.LoadSpec:
        settings, made = self._settings, model.LoadSpec()
        made.CopyFrom(spec)
        wanted = spec.max_context_tokens or context
        made.max_context_tokens = min(
            filter(None, (wanted, settings.max_context_tokens)), default=0
        )
        made.max_sequences = spec.max_sequences or settings.max_sequences or 0
        made.cache_tokens = spec.cache_tokens or settings.cache_tokens or 0
        return made


def preferred(
    several: Sequence[Weights],
    devices: Sequence[model.Device],
    needed: Callable[[Weights], int],
) -> Weights:
    """The best quantisation for this host, by what its devices hold when they are empty.

    The first rule that finds one:

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
    for room in _rooms(devices):
        for one in by_size:
            if needed(one) <= room:
                return one
    return by_size[-1]


def open_context(weights: Weights, devices: Sequence[model.Device]) -> int:
    """Tokens of context for a load of a GGUF model where nobody names a number.

    Models are trained for contexts whose cache is larger than most machines. The first rule that
    finds one, of all GPUs together and then of the host:

    1. As trained, where its cache fits beside the weights.
    2. So much that the cache of one sequence takes half of what is left beside them, in steps of
       1,024; at least 8,192.

    Else it is 8,192, and the load is refused with numbers.

    Args:
        weights: what is to be loaded.
        devices: of this host.

    Returns: 0 where it is as trained, or nothing is known of the model.
    """
    trained, per_token = weights.max_context_tokens, weights.cache_bytes_per_token
    rooms = [room for room in _rooms(devices) if room]
    if weights.format != "gguf" or not per_token or trained <= _LEAST or not rooms:
        return 0
    for room in rooms:
        overhead = min(int(room * _OVERHEAD_SHARE), _MOST_OVERHEAD_BYTES)
        rest = room - weights.bytes - overhead
        if rest >= trained * per_token:
            return 0
        tokens = int(rest * _SHARE) // per_token // _STEP * _STEP
        if tokens >= _LEAST:
            return min(tokens, trained)
    return _LEAST


def _rooms(devices: Sequence[model.Device]) -> tuple[int, int]:
    """Bytes of all GPUs together, and of the host."""
    gpus = sum(_room(device) for device in devices if device.kind in _GPUS)
    return gpus, sum(_room(one) for one in devices if one.kind == model.DEVICE_KIND_CPU)


def _room(device: model.Device) -> int:
    return max(0, device.memory_total_bytes - device.memory_reserved_bytes)
