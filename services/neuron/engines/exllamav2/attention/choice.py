"""Which attention backend a worker uses, decided from plain facts."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Final

MIN_FLASH_ATTN: Final = (2, 5, 7)
"""First flash-attn with a paged cache (exllamav2 0.3.2, attn.py)."""

HOPPER: Final = (9, 0)
AMPERE: Final = (8, 0)
VARIABLE: Final = "CORTEX_EXLLAMAV2_ATTENTION"


class Backend(enum.Enum):
    """An implementation of paged attention, best first."""

    FLASH = "flash"
    """The real flash-attn package."""
    FA3 = "fa3"
    """FlashAttention-3 (`flash_attn_interface`), Hopper only."""
    TRITON = "triton"
    """Our own kernel."""
    TORCH = "torch"
    """Gather and SDPA: works everywhere, slow."""


class NoBackendError(Exception):
    """The backend that was asked for cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What the machine offers.

    Attributes:
        flash_attn: version of the real package, None if it cannot be imported.
        has_fa3: `flash_attn_interface` can be imported.
        has_triton: Triton can be imported.
        capability: the least compute capability of the visible devices, None without a device.
        triton_interpreted: Triton runs in its interpreter, on the CPU.
    """

    flash_attn: tuple[int, ...] | None = None
    has_fa3: bool = False
    has_triton: bool = False
    capability: tuple[int, int] | None = None
    triton_interpreted: bool = False


def choose(wish: str, facts: Facts) -> Backend:
    """The backend to install.

    Args:
        wish: `auto` or a backend's name.
        facts: what the machine offers.

    Raises:
        NoBackendError: the wish is unknown or cannot be met.
    """
    if wish == "auto":
        return next(backend for backend in Backend if obstacle(backend, facts) is None)
    try:
        backend = Backend(wish)
    except ValueError:
        names = ", ".join(["auto", *(known.value for known in Backend)])
        raise NoBackendError(f"{VARIABLE}={wish}: unknown backend (known: {names})") from None
    reason = obstacle(backend, facts)
    if reason is not None:
        raise NoBackendError(f"{VARIABLE}={wish}: {reason}")
    return backend


def obstacle(backend: Backend, facts: Facts) -> str | None:
    """Why a backend cannot run here, None if it can."""
    return _OBSTACLES[backend](facts)


def _flash(facts: Facts) -> str | None:
    if facts.flash_attn is None:
        return "flash-attn is not installed"
    if facts.flash_attn < MIN_FLASH_ATTN:
        return f"flash-attn {_dotted(facts.flash_attn)} is older than {_dotted(MIN_FLASH_ATTN)}"
    if facts.capability is None or facts.capability < AMPERE:
        return "flash-attn needs devices of compute capability 8.0 or newer"
    return None


def _fa3(facts: Facts) -> str | None:
    if not facts.has_fa3:
        return "flash_attn_interface (FlashAttention-3) is not installed"
    if facts.capability is None or facts.capability[0] != HOPPER[0]:
        return "FlashAttention-3 runs on compute capability 9.0 only"
    return None


def _triton(facts: Facts) -> str | None:
    if not facts.has_triton:
        return "Triton is not installed"
    if facts.triton_interpreted:
        return None
    if facts.capability is None or facts.capability < AMPERE:
        return "the Triton kernel needs devices of compute capability 8.0 or newer"
    return None


def _torch(_facts: Facts) -> str | None:
    return None


_OBSTACLES: Final[dict[Backend, Callable[[Facts], str | None]]] = {
    Backend.FLASH: _flash,
    Backend.FA3: _fa3,
    Backend.TRITON: _triton,
    Backend.TORCH: _torch,
}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
