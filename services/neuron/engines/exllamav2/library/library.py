"""Opens ExLlamaV2 in this process: extension first, attention second, the package last."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.util
import platform
import sys
from typing import Any, Final

from services.neuron.engines import EngineUnavailableError
from services.neuron.engines.exllamav2.library import allocator, architectures, build
from services.neuron.engines.exllamav2.library.probe import BUILD, INSTALL, SUPPORTED

_TOWER: Final = "vision_tower.vision_model."
GEMMA_TOWER: Final = tuple(
    (f"$vision_tower.{part}.", f"{_TOWER}{part}.")
    for part in ("embeddings", "encoder", "post_layernorm")
)


@dataclasses.dataclass(frozen=True, slots=True)
class Library:
    """The opened library.

    Attributes:
        torch, exllamav2, generator: the modules.
        facts: attention backend, versions, for `ModelInfo.facts` and the worker's `Hello`.
    """

    torch: Any
    exllamav2: Any
    generator: Any
    facts: dict[str, str]

    def free_bytes(self) -> int:
        """Free memory of all visible devices."""
        cuda = self.torch.cuda
        return sum(int(cuda.mem_get_info(i)[0]) for i in range(cuda.device_count()))

    def held_bytes(self) -> dict[str, int]:
        """Memory that this process's allocator holds, by device id."""
        cuda = self.torch.cuda
        return {self.device_id(i): int(cuda.memory_reserved(i)) for i in range(cuda.device_count())}

    def device_id(self, index: int) -> str:
        """A device's name for NVML: `GPU-<uuid>`."""
        uuid = str(getattr(self.torch.cuda.get_device_properties(index), "uuid", index))
        return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def open_library() -> Library:
    """Imports everything, in the order that it needs.

    Raises:
        EngineUnavailableError: something is missing; the message says what to do.
    """
    if not __debug__:
        raise EngineUnavailableError("python -O removes the checks that ExLlamaV2 relies on.")
    torch = _import("torch")
    if torch.cuda.device_count() == 0:
        raise EngineUnavailableError("No CUDA device is visible to this worker.")
    _find_extension(torch)
    # Before the package: it looks for flash-attn while it is imported.
    from services.neuron.engines.exllamav2.attention.choice import NoBackendError
    from services.neuron.engines.exllamav2.attention.stand_in import install

    try:
        backend = install()
    except NoBackendError as error:
        raise EngineUnavailableError(str(error)) from error
    is_first = "exllamav2" not in sys.modules
    package = _import("exllamav2")
    from services.neuron.engines.exllamav2.library import rotary

    rotary.install(_import("exllamav2.rope"))
    # What transformers 5 calls the parts of Gemma 3's tower; "$" stands for the name's beginning.
    names = _import("exllamav2.architecture").google_keymap
    names += [(old, new) for old, new in GEMMA_TOWER if (old, new) not in names]
    if not package.attn.has_flash_attn_with_paged:
        raise EngineUnavailableError("exllamav2 was imported before its attention was in place.")
    facts = {
        "allocator": allocator.settle(torch),
        "attention": backend.value,
        "exllamav2": SUPPORTED,
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
    }
    library = Library(torch, package, _import("exllamav2.generator"), facts)
    if is_first:
        # What the imports made lives as long as the process. Looked through at every full
        # collection, it would hold up all streams for 0.15 s each time.
        gc.collect()
        gc.freeze()
    return library


def _find_extension(torch: Any) -> None:
    """Puts the built extension where `import exllamav2` finds it; never lets it compile."""
    if build.MODULE in sys.modules or importlib.util.find_spec(build.MODULE) is not None:
        return
    devices = range(torch.cuda.device_count())
    capabilities = [torch.cuda.get_device_capability(i) for i in devices]
    version = str(torch.__version__)
    archs = architectures.arch_list(capabilities)
    key = build.BuildKey(
        SUPPORTED, version, str(torch.version.cuda), platform.python_version(), archs
    )
    file = build.find(key, build.cache_folder(), capabilities)
    if file is None:
        raise EngineUnavailableError(
            f"The ExLlamaV2 extension is not built for torch {version} on sm {archs}:"
            f" run `{BUILD}`."
        )
    sys.path.insert(0, str(file.parent))


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(f"{error.name} is not installed: {INSTALL}") from error
