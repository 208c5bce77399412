"""The devices that llama.cpp sees, asked in a process of its own.

Its backends open drivers and devices, which the daemon must not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

LIBRARY_VARIABLE: Final = "CORTEX_LLAMACPP_LIBRARY"
"""Environment variable by which the daemon hands `neuron.llamacpp.library` to its workers."""
OWN_FOLDER: Final = "~/.local/share/cortex/llama.cpp"
"""An official build that is unpacked here is used without a setting."""
_MODULE: Final = "services.neuron.engines.llamacpp.library"
_ANSWER_SECONDS: Final = 60.0
# Driver nodes of graphics cards; NVIDIA's driver alone makes no others.
_NODES: Final = ("/dev/dri", "/dev/kfd", "/dev/nvidiactl", "/dev/dxg")
_PCI: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)


class GgmlDevice(msgspec.Struct, frozen=True):
    """One device.

    Attributes:
        device_id: `pci-0000:01:00.0` where it says so, else its name in small letters (`vulkan0`).
        name: ggml's, `CUDA0`.
        description: as its maker calls it.
        backend: `CUDA`, `ROCm`, `Vulkan`, `SYCL`, `Metal`, `CPU`.
        kind: `gpu`, `igpu` (shares the host's memory), `cpu`, `accel`.
        memory_total_bytes, memory_free_bytes: as its driver tells.
        handle: its `ggml_backend_dev_t` in the process that asked.
    """

    device_id: str
    name: str
    description: str
    backend: str
    kind: str
    memory_total_bytes: int
    memory_free_bytes: int
    handle: int = 0

    @property
    def is_gpu(self) -> bool:
        """True if layers can be put on it."""
        return self.kind in {"gpu", "igpu"}


class GgmlListing(msgspec.Struct, frozen=True):
    """What a library says of itself.

    Attributes:
        version: of llama.cpp; empty where none was asked.
        library: the file, and why this one.
        devices: all that it sees.
        usable: the versions whose structs are known, in words.
        problem: why it cannot be used, in a sentence.
    """

    version: str = ""
    library: str = ""
    devices: tuple[GgmlDevice, ...] = ()
    usable: str = ""
    problem: str = ""

    @property
    def gpus(self) -> tuple[GgmlDevice, ...]:
        """Those that layers can be put on; of a card that two backends see, the first."""
        found: dict[str, GgmlDevice] = {}
        for device in self.devices:
            if device.is_gpu:
                found.setdefault(device.device_id, device)
        return tuple(found.values())


def ask(setting: str, *, even_without_cards: bool = False) -> GgmlListing:
    """Loads the library in another process and lists its devices. Blocks up to a minute.

    Args:
        setting: `neuron.llamacpp.library`.
        even_without_cards: also where no library is named and no card has a driver.
    """
    if not (setting or even_without_cards or any(Path(node).exists() for node in _NODES)):
        return GgmlListing()
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE, setting],
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return GgmlListing(problem=f"llama.cpp does not say what it sees: {error}.")
    try:
        return msgspec.json.decode(done.stdout, type=GgmlListing)
    except msgspec.DecodeError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        words = lines[-1] if lines else f"it ended with code {done.returncode}"
        return GgmlListing(problem=f"llama.cpp does not say what it sees: {words}")


def pci_id(text: str) -> str | None:
    """A device id of the PCI address in a text, or None where there is none.

    NVML writes the domain with eight digits, ggml with four.
    """
    found = _PCI.search(text)
    if found is None:
        return None
    domain, _, rest = found[0].lower().partition(":")
    return f"pci-{int(domain, 16):04x}:{rest}"
