"""What an exception out of the library means for the process. Pure.

By type first, by words second, along the whole chain of causes: a wrapper must not hide a CUDA
error, and a shape error that mentions a device must not cost a process.
"""

from __future__ import annotations

import enum
import pathlib
import traceback
from collections.abc import Iterator
from typing import Final

_DEVICE_TYPES: Final = frozenset({
    "AcceleratorError", "CudaError",
    # the other ranks of a group are gone, or in the middle of another pass
    "EnginePoisoned", "OutOfStepError",
})  # fmt: skip
_MEMORY_TYPES: Final = frozenset({"OutOfMemoryError"})
_DEVICE_WORDS: Final = (
    "CUDA error:",
    "CUDA driver error:",
    "cudaError",
    "CUBLAS_STATUS_",
    "CUSOLVER_STATUS_",
    "cuDNN error",
    "CUDNN_STATUS_",
    "NCCL error",
    "Triton Error [CUDA]",
    "device-side assert triggered",
    "an illegal memory access was encountered",
    "unspecified launch failure",
)
_MEMORY_WORDS: Final = ("CUDA out of memory", "Insufficient VRAM for model and cache")


class Fault(enum.Enum):
    """How far the damage goes."""

    OUT_OF_MEMORY = "out of memory"
    """The newest work was too much; the context is sound."""
    DEVICE = "device"
    """The context is poisoned: only a new process mends it."""
    OTHER = "other"
    """The generator's state is lost, the device is sound."""


def classify(error: BaseException) -> Fault:
    """How far an exception's damage goes."""
    chain = list(_chain(error))
    if any(_is(link, _DEVICE_TYPES, _DEVICE_WORDS) for link in chain):
        return Fault.DEVICE
    if any(_is(link, _MEMORY_TYPES, _MEMORY_WORDS) for link in chain):
        return Fault.OUT_OF_MEMORY
    return Fault.OTHER


def one_line(error: BaseException) -> str:
    """The exception in one line: its type and the first 300 characters of its words.

    Of one without words, a bare assertion, the line that raised it.
    """
    words = " ".join(str(error).split())[:300] or _place(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f"{pathlib.Path(last.filename).name}, line {last.lineno}: {last.line or ''}"[:300]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _is(error: BaseException, types: frozenset[str], words: tuple[str, ...]) -> bool:
    if any(kind.__name__ in types for kind in type(error).__mro__):
        return True
    # Only the library's own kind of error speaks for the device; an AssertionError that quotes
    # such words does not.
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
