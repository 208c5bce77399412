"""How the Ollama API describes the files of a model.

What no neuron has reported yet is empty or 0.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Final

from services.backplane import protobuf_time
from services.gateway.dialects.lookup import ListedModel

# Class names of Hugging Face models end in one of these; families are called as what is before.
_HEADS: Final = ("ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "LMHeadModel", "Model")


def details(one: ListedModel) -> dict[str, Any]:
    """`details` as in tags, ps and show."""
    family = _family(one)
    weights = one.weights
    return {
        "parent_model": "",
        "format": weights.format if weights else "",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": weights.parameter_size if weights else "",
        "quantization_level": weights.quantization if weights else "",
    }


def model_info(one: ListedModel) -> dict[str, Any]:
    """`model_info` as in show; clients look the window up under the architecture's name."""
    family = _family(one) or "unknown"
    info: dict[str, Any] = {"general.architecture": family, "general.basename": one.model}
    if one.weights is not None and one.weights.parameter_size:
        info["general.size_label"] = one.weights.parameter_size
    if one.max_context_tokens is not None:
        info[f"{family}.context_length"] = one.max_context_tokens
    return info


def size_bytes(one: ListedModel) -> int:
    """Size of the files, in bytes; 0: not known."""
    return one.weights.bytes if one.weights else 0


def digest(one: ListedModel) -> str:
    """64 hex digits that change with the files.

    Before a neuron has described them they stand for the name alone: Ollama's own program cuts
    the first twelve off without looking, and dies of an empty digest.
    """
    if one.weights is not None and one.weights.fingerprint:
        return one.weights.fingerprint
    return hashlib.sha256(one.model.encode()).hexdigest()


def modified_at(one: ListedModel) -> str:
    """When the files were written; before that is known, when the model was first known."""
    if one.weights is not None and one.weights.HasField("modified_at"):
        when = protobuf_time.nearest(one.weights.modified_at)
    else:
        when = one.created_unix_seconds
    return dt.datetime.fromtimestamp(when, dt.UTC).isoformat().replace("+00:00", "Z")


def _family(one: ListedModel) -> str:
    name = one.weights.architecture if one.weights else ""
    for head in _HEADS:
        if name.endswith(head) and name != head:
            return name.removesuffix(head).lower()
    return name
