"""How torch's memory grows: settled once per process, by trying."""

from __future__ import annotations

from typing import Any, Final

EXPANDABLE: Final = "expandable segments"
DEFAULT: Final = "torch's default"
_SETTING: Final = "expandable_segments:"
_TRIED_BYTES: Final = 2 << 20


def settle(torch: Any) -> str:
    """Lets memory grow in place where the driver can, and says how it grows.

    With fixed segments a cache may find no hole that is large enough although there is memory.
    Virtual GPUs and some containers cannot map memory so, which shows at the first allocation: one
    is tried on every visible device. Whoever opens the library gets the same, a worker or a script;
    what PYTORCH_CUDA_ALLOC_CONF says of this is overridden.
    """
    setter = _setter(torch)
    if setter is None or not torch.cuda.is_available():
        return DEFAULT
    try:
        setter(f"{_SETTING}True")
        for index in range(torch.cuda.device_count()):
            torch.empty(_TRIED_BYTES, dtype=torch.uint8, device=f"cuda:{index}")
    except RuntimeError:
        setter(f"{_SETTING}False")
        return DEFAULT
    finally:
        torch.cuda.empty_cache()
    return EXPANDABLE


def _setter(torch: Any) -> Any:
    """Torch's own function for it, which has moved; None where it has none."""
    newer = getattr(torch._C, "_accelerator_setAllocatorSettings", None)  # noqa: SLF001
    return newer or getattr(torch.cuda.memory, "_set_allocator_settings", None)
