"""The engines that keep the contract, and how each gets a model that says what a test chose."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.neuron.engine_api.model import Offload
from tests.doubles import scripted, vulkan_library
from tests.doubles.scripted import Script


@dataclasses.dataclass(frozen=True)
class Subject:
    """One engine under the contract.

    Attributes:
        name: of the subject.
        engine: its name for `create_engine`.
        build: writes a scripted model under a folder and returns what `LoadPlan.path` names.
        is_missing: why it cannot run on this machine, or None.
        environment: what its process needs.
        plan: fields of every `LoadPlan`.
        what: of it, in words.
    """

    name: str
    engine: str
    build: Callable[[Path, Script], Path]
    is_missing: Callable[[], str | None]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    plan: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    what: str = ""


def _llamacpp_missing() -> str | None:
    return None if importlib.util.find_spec("xllamacpp") else "xllamacpp is not installed"


def _build_gguf(folder: Path, script: Script) -> Path:
    return scripted.build(folder / f"{script.name}.gguf", script)


def _exllamav2_missing() -> str | None:
    """It runs on a GPU, or emulated: `scripts/test-exllamav2` installs that before the tests."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("exllamav2") is None:
        return "torch and exllamav2 are not installed"
    import torch

    return None if torch.cuda.device_count() else "no GPU, and none emulated"


def _build_folder(folder: Path, script: Script) -> Path:
    from tests.engines.exllamav2 import folders

    return folders.build(folder, script)


def _on_vulkan(name: str, what: str, *, plan: Mapping[str, Any], **offload: Any) -> Subject:
    return Subject(
        name,
        "llamacpp",
        _build_gguf,
        vulkan_library.missing,
        environment=vulkan_library.environment(),
        plan={"offload": Offload(device_ids=(vulkan_library.DEVICE_ID,), **offload), **plan},
        what=f"llama.cpp, its Vulkan backend on a device in software, {what}",
    )


# flash attention, without which the library quantises keys alone
_Q8 = {"cache_format": "q8"}
SUBJECTS = [
    Subject("llamacpp", "llamacpp", _build_gguf, _llamacpp_missing, what="llama.cpp on the CPU"),
    Subject(
        "llamacpp-q8",
        "llamacpp",
        _build_gguf,
        _llamacpp_missing,
        plan=_Q8,
        what="llama.cpp on the CPU, its cache in eight bits",
    ),
    _on_vulkan("llamacpp-vulkan", "every layer there", plan={}),
    _on_vulkan(
        "llamacpp-vulkan-partial", "the output there, the layer on the CPU", plan={}, gpu_layers=1
    ),
    _on_vulkan(
        "llamacpp-vulkan-q8",
        "every layer there, its cache in eight bits",
        plan=_Q8,
        flash_attention=True,
    ),
    Subject(
        "exllamav2",
        "exllamav2",
        _build_folder,
        _exllamav2_missing,
        what="ExLlamaV2, its own code on an emulated device",
    ),
]
