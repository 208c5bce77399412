"""Which tensors of a load lie on which device, and what it has taken there."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psutil

from services.neuron.devices.ggml import GgmlDevice
from services.neuron.engine_api.model import LoadFailed, Offload
from services.neuron.engines.llamacpp.library import devices
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import TensorOverride, pointer

HOST: Final = "cpu"
_CPU_DEVICE: Final = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_ALL: Final = -1
# No model has more; of ten thousands the library's regular expression cannot be compiled.
_MOST_LAYERS: Final = 1024
# enum llama_split_mode
_BY_LAYERS, _BY_ROWS = 1, 2
# Of others the library puts whole layers on the first device, whatever room that has.
_ROW_BACKENDS: Final = frozenset({"CUDA", "ROCm", "MUSA", "SYCL"})
_EXPERTS: Final = r"blk\.({})\.ffn_(up|down|gate|gate_up)_(ch|)exps"


class Placement:
    """Tells llama.cpp where a model goes. Keep it until the model is loaded: it owns the arrays."""

    def __init__(self, library: Library, offload: Offload) -> None:
        """Finds the devices.

        Raises:
            LoadFailed: LOAD_FAILED, a device is not here (any more).
        """
        self._library = library
        self._offload = offload
        self.devices = devices.chosen(library, offload.device_ids)
        here = {device.device_id for device in self.devices}
        gone = [device_id for device_id in offload.device_ids if device_id not in here]
        if gone:
            raise LoadFailed("LOAD_FAILED", f"llama.cpp does not see the device {gone[0]}.")
        self._handles = (pointer * (len(self.devices) + 1))(
            *(device.handle for device in self.devices), None
        )
        self._overrides = self._make_overrides()

    def fill(self, params: Any) -> None:
        """Writes it into a `llama_model_params`."""
        params.devices = ctypes.addressof(self._handles)
        layers = _ALL if self._offload.gpu_layers is None else self._offload.gpu_layers
        params.n_gpu_layers = layers if self.devices else 0
        params.split_mode = _BY_ROWS if _is_by_rows(self._offload, self.devices) else _BY_LAYERS
        if self._overrides is not None:
            params.tensor_buft_overrides = ctypes.addressof(self._overrides)

    def free_bytes(self, told: Mapping[str, int], *, layers: int) -> int:
        """Room for a cache whose parts lie beside their layers, once the weights are loaded.

        Args:
            told: as for `held_bytes`.
            layers: of the model, the output counted as one.
        """
        host = psutil.virtual_memory().available
        if not self.devices:
            return host
        wanted = layers if self._offload.gpu_layers is None else self._offload.gpu_layers
        share = min(wanted, layers) / layers
        free = sum(device.memory_free_bytes for device in self.devices)
        free -= sum(count for name, count in told.items() if self._is_on_gpu(name))
        on_gpus = max(0, free) / share if share else float("inf")
        return int(min(on_gpus, host / (1 - share) if share < 1 else on_gpus))

    def held_bytes(
        self, told: Mapping[str, int], *, resident_bytes: int, file_bytes: int
    ) -> dict[str, int]:
        """Bytes that a load holds by device id; see `HOST`.

        1. A GPU holds what the library says of its buffers there, or what its driver shows, if
           that is more.
        2. Without a GPU the host holds what the process grew by.
        3. Beside GPUs it holds its own buffers and the weights that are on no GPU: what the
           process grew by is also what was read of the file on the way to them.

        Args:
            told: bytes of buffers by the names that llama.cpp gives them.
            resident_bytes: by which this process grew.
            file_bytes: of the weights.
        """
        if not self.devices:
            return {HOST: resident_bytes}
        seen = devices.chosen(self._library, self._offload.device_ids)
        now = {device.device_id: device.memory_free_bytes for device in seen}
        held = dict[str, int]()
        offloaded = 0
        for device in self.devices:
            ours = {name: count for name, count in told.items() if _is_of(name, device)}
            offloaded += sum(count for name, count in ours.items() if " model" in name)
            free = now.get(device.device_id, device.memory_free_bytes)  # it may be lost by now
            shown = device.memory_free_bytes - free
            held[device.device_id] = max(sum(ours.values()), shown)
        others = sum(
            count
            for name, count in told.items()
            if " model" not in name and not self._is_on_gpu(name)
        )
        return held | {HOST: others + max(0, file_bytes - offloaded)}

    def _is_on_gpu(self, buffer: str) -> bool:
        return any(_is_of(buffer, device) for device in self.devices)

    def _make_overrides(self) -> Any:
        if not self._offload.cpu_experts:
            return None
        count = min(self._offload.cpu_experts, _MOST_LAYERS)
        layers = "|".join(str(layer) for layer in range(count))
        host = self._library.backend_dev_buffer_type(self._library.backend_dev_by_type(_CPU_DEVICE))
        pattern = _EXPERTS.format(layers).encode()
        return (TensorOverride * 2)(TensorOverride(pattern, host), TensorOverride(None, None))


def described(offload: Offload, used: Sequence[GgmlDevice], *, layers: int) -> dict[str, str]:
    """How the model is divided, as a fact for its description."""
    if not used:
        return {}
    on_gpu = layers if offload.gpu_layers is None else min(offload.gpu_layers, layers)
    facts = {
        "devices": ", ".join(f"{device.name} ({device.description})" for device in used),
        "gpu_layers": f"{on_gpu} of {layers}",
    }
    if offload.cpu_experts:
        facts["cpu_experts"] = str(offload.cpu_experts)
    if len(used) > 1:
        facts["split"] = "rows" if _is_by_rows(offload, used) else "layers"
    return facts


def _is_by_rows(offload: Offload, used: Sequence[GgmlDevice]) -> bool:
    """Rows were asked for, and the backends of all devices divide them."""
    return offload.by_rows and all(device.backend in _ROW_BACKENDS for device in used)


def _is_of(buffer: str, device: GgmlDevice) -> bool:
    """`CUDA0 model`, `CUDA0_Split model` are of CUDA0, `CUDA_Host model` and `CUDA01` are not."""
    rest = buffer.removeprefix(device.name)
    return rest != buffer and not rest[:1].isdigit()
