"""The devices of a loaded library, as ggml lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from services.neuron.devices.ggml import GgmlDevice, pci_id

if TYPE_CHECKING:
    from services.neuron.engines.llamacpp.library.library import Library

# enum ggml_backend_dev_type
_KINDS: Final = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}


def listed(library: Library) -> list[GgmlDevice]:
    """All devices, measured now.

    Raises:
        ImportError: the struct that describes one is laid out otherwise.
    """
    return [_device(library, at) for at in range(library.backend_dev_count())]


def chosen(library: Library, device_ids: Sequence[str]) -> list[GgmlDevice]:
    """The devices of these ids, in this order; one that is not here is left out."""
    if not device_ids:
        return []
    # of a card that two backends see the first, as the daemon has counted it
    here = {device.device_id: device for device in reversed(listed(library))}
    return [here[device_id] for device_id in device_ids if device_id in here]


def _device(library: Library, at: int) -> GgmlDevice:
    handle: int = library.backend_dev_get(at)
    props = library.new_device_props()
    library.backend_dev_get_props(handle, props)
    name: bytes = library.backend_dev_name(handle)
    kind: int = library.backend_dev_type(handle)
    if (props.name, props.type) != (name, kind):
        raise ImportError("ggml_backend_dev_props is laid out otherwise")
    backend: bytes = library.backend_reg_name(library.backend_dev_backend_reg(handle))
    address = pci_id((props.device_id or b"").decode("ascii", "replace"))
    text = name.decode("utf-8", "replace")
    return GgmlDevice(
        device_id=address or text.lower(),
        name=text,
        description=(props.description or b"").decode("utf-8", "replace"),
        backend=backend.decode("utf-8", "replace"),
        kind=_KINDS.get(kind, "accel"),
        memory_total_bytes=props.memory_total,
        memory_free_bytes=props.memory_free,
        handle=handle,
    )
