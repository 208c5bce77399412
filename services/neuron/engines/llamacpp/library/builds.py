"""The builds of llama.cpp whose structs are known. Each has been loaded and has generated."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from services.neuron.engines.llamacpp.library.structs import (
    ContextParams,
    ContextParams05,
    ModelParams,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Build:
    """One layout of the structs.

    Attributes:
        version: as `llama_version` tells it, without what follows the numbers.
        model_params, context_params: `ctypes` structures.
    """

    version: str
    model_params: type[Any]
    context_params: type[Any]


BUILDS: Final = (
    Build("0.5.0", ModelParams, ContextParams05),  # the release; node-llama-cpp 3.22
    Build("0.6.0", ModelParams, ContextParams),  # b11549; xllamacpp 2026.10.11549
)
_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)+")


def build_of(version: str) -> Build:
    """The build that calls itself so.

    Raises:
        ImportError: it is none of those that are known; the message names it and them.
    """
    numbers = _NUMBERS.match(version)
    for build in BUILDS:
        if numbers is not None and numbers[0] == build.version:
            return build
    raise ImportError(f"It is llama.cpp {version}, and {known()} can be used.")


def known() -> str:
    """The versions that can be used, in words."""
    return " or ".join(build.version for build in BUILDS)
