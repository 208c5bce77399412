"""llama.cpp with Vulkan on a software device, as `scripts/vulkan-library` fetches it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FOLDER: Final = Path(os.environ.get("VULKAN_LIBRARY", "/nowhere"))
DEVICE_ID: Final = "vulkan0"
DEVICE_BYTES: Final = 2 << 30
"""What llvmpipe says it has."""


def missing() -> str | None:
    """Why it cannot be used here, or None.

    Its first passes compile shaders for minutes, so that only who asks for it gets it.
    """
    if (FOLDER / "made-of").is_file():
        return None
    return "llama.cpp with Vulkan was not asked for: run scripts/test-vulkan"


def environment() -> dict[str, str]:
    """What a process needs to load it and to see its device."""
    return {
        "CORTEX_LLAMACPP_LIBRARY": str(FOLDER),
        "VK_ICD_FILENAMES": str(FOLDER / "llvmpipe.json"),
        # the first device, which ggml leaves out otherwise because it is a CPU
        "GGML_VK_VISIBLE_DEVICES": "0",
        # a shader takes half a minute to compile
        "MESA_SHADER_CACHE_DIR": str(FOLDER / "shaders"),
    }
