"""Instances of GPUs that are divided in MIG mode: devices of their own, to CUDA and to us."""

from __future__ import annotations

import contextlib
from typing import Any, Final

PREFIX: Final = "MIG-"
"""An instance's id begins so. A process can use one of them, and no whole GPU beside it."""


def instances(nvml: Any, handle: Any) -> list[Any] | None:
    """Handles of a GPU's instances; None where it is not divided, or does not say.

    Args:
        nvml: the `pynvml` module, opened.
        handle: of the GPU.
    """
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if mode else 0
    except nvml.NVMLError:  # most GPUs cannot be divided, and old drivers know nothing of it
        return None
    if not mode:
        return None
    found: list[Any] = []
    for index in range(most):
        with contextlib.suppress(nvml.NVMLError):  # there are fewer instances than there may be
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    return found
