"""LoRA adapters: how big one is, whether it fits, and its way into the model.

Source: the PEFT format (`adapter_config.json`, `adapter_model.safetensors`); exllamav2/lora.py
(0.3.2).
"""

from __future__ import annotations

import json
import pathlib
from typing import Any, Final, cast

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.files import weights
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.engines.exllamav2.library.faults import one_line
from services.neuron.engines.exllamav2.library.library import Library

TENSORS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
_FAILED: Final = "LOAD_FAILED"


def size(folder: str) -> int:
    """Bytes of an adapter once loaded.

    Raises:
        LoadFailed: there is none, a file is cut short, or it is of a kind that cannot be used.
    """
    place = pathlib.Path(folder)
    settings = _settings(place)
    if settings.get("use_dora"):
        raise LoadFailed(BAD, f"{folder}: a DoRA adapter; ExLlamaV2 takes plain LoRA.")
    if not (place / TENSORS).is_file():
        raise LoadFailed(BAD, f"{folder}: {TENSORS} is missing.")
    return sum(weights.header(place / TENSORS).values())


def load(library: Library, model: Any, folder: str) -> Any:
    """Loads an adapter into a loaded model.

    Raises:
        LoadFailed: it was made for another model.
    """
    place = pathlib.Path(folder)
    try:
        # Not by folder: given the choice, the library takes a pickled file.
        return library.exllamav2.ExLlamaV2Lora(model, str(place / CONFIG), str(place / TENSORS))
    except KeyError as error:
        told = f"{folder}: the model has no {error.args[0]} for this adapter."
        raise LoadFailed(_FAILED, told) from error
    except (ValueError, AssertionError, OSError) as error:
        words = one_line(error).removeprefix("ValueError: ").removeprefix("## Error: ")
        raise LoadFailed(_FAILED, f"{folder}: does not fit the model: {words}") from error


def _settings(place: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads((place / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise LoadFailed(BAD, f"{place / CONFIG}: {error}") from error
    settings = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if not settings.get("r") or settings.get("lora_alpha") is None:
        raise LoadFailed(BAD, f"{place / CONFIG}: no rank and alpha.")
    return settings
