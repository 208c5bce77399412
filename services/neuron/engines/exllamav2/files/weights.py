"""Reads safetensors headers before anything is loaded: are the files whole, how big will it be.

No torch, no tensor data: a few kilobytes per file. The estimate equals the library's own weight
figures to 0.1 MiB; scratch and context are measured constants.

Source: the safetensors format; exllamav2 0.3.2 `weight_footprint`, `scratch_space_fixed`, cache.py.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Final, cast

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.weights import safetensors

BYTES_PER_ELEMENT: Final = {"fp16": 2.0, "q8": 1 + 1 / 16, "q6": 0.75 + 1 / 16, "q4": 0.5 + 1 / 16}
"""Of the cache, scales included."""

CONTEXT_BYTES: Final = 550 << 20
"""What a CUDA context with torch's kernels and cuBLAS takes per process."""

GRAPH_BYTES: Final = 64 << 20
"""What the library's CUDA graphs of quantised layers take per device; an estimate."""

ATTENTION_BYTES: Final = 64 << 20
"""Partial results of our attention kernels per device; their bound."""

_MAX_DEQUANT_ELEMENTS: Final = 512 << 20
_HEAD_COLUMNS: Final = 32
"""The head is padded to a multiple of this."""
_ALIGNMENT: Final = 128
"""Added to every slice of the library's scratch."""
_READABLE: Final = frozenset({"BF16", "F16", "F32", "I16", "I32"})
"""Types that the library's loader knows (`stloader.convert_dtype`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSizes:
    """Tensor bytes of a folder.

    Attributes:
        tensors: name to bytes, as loaded (float32 becomes float16).
    """

    tensors: Mapping[str, int]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.tensors.values())

    @property
    def embedding(self) -> int:
        """Bytes of the token embedding, which stays in host memory."""
        return sum(
            size
            for name, size in self.tensors.items()
            if any(part in name for part in ("embed_tokens", "tok_embeddings", ".wte."))
        )

    @property
    def is_head_shared(self) -> bool:
        """There is no head of its own: a second copy of the embedding is the head.

        `tie_word_embeddings` does not tell: EXL2 gives tied models a head, and files of Gemma leave
        the setting out.
        """
        return not any("lm_head." in name or name == "output.weight" for name in self.tensors)

    @property
    def quantisation(self) -> str:
        """`exl2`, `gptq`, or empty for 16-bit weights; older EXL2 folders do not say it."""
        ends = {name.rpartition(".")[2] for name in self.tensors}
        return "exl2" if "q_weight" in ends else "gptq" if "qweight" in ends else ""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadEstimate:
    """Device memory that a load will take, in bytes.

    Attributes:
        weights: on the devices.
        host: kept in host memory (the embedding).
        cache: keys and values.
        scratch: buffers for the longest input.
        context: of the process, once per device.
    """

    weights: int
    host: int
    cache: int
    scratch: int
    context: int

    @property
    def total(self) -> int:
        """All device bytes."""
        return self.weights + self.cache + self.scratch + self.context


def read(folder: pathlib.Path) -> TensorSizes:
    """Reads the headers of every safetensors file of a folder.

    Raises:
        LoadFailed: no file, a file is cut short or malformed, or the index names a missing one.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LoadFailed(BAD, f"{folder}: no .safetensors file.")
    _check_index(folder, {file.name for file in files})
    tensors: dict[str, int] = {}
    for file in files:
        tensors.update(header(file))
    return TensorSizes(tensors)


def header(file: pathlib.Path) -> dict[str, int]:
    """Tensor names and their bytes once loaded (float32 becomes float16).

    Raises:
        LoadFailed: the file is cut short, has trailing bytes, or its header cannot be read; a
            tensor is of a type that the library does not read.
    """
    try:
        found = safetensors.read(file)
    except safetensors.BadSafetensorsError as error:
        raise LoadFailed(BAD, f"{file}: {error}.") from error
    if found.file_bytes != found.expected_bytes:
        told = f"has {found.file_bytes} bytes, its header says {found.expected_bytes}"
        raise LoadFailed(BAD, f"{file}: {told}.")
    for name, tensor in found.tensors.items():
        # Buffers of other types lie about in some files and are never read.
        if name.endswith("weight") and tensor.dtype not in _READABLE:
            told = f"{name} is of type {tensor.dtype}; ExLlamaV2 reads none of that type"
            raise LoadFailed(BAD, f"{file}: {told}.")
    return {name: _loaded_bytes(tensor) for name, tensor in found.tensors.items()}


def _loaded_bytes(tensor: safetensors.Tensor) -> int:
    return tensor.size_bytes // 2 if tensor.dtype == "F32" else tensor.size_bytes


def _check_index(folder: pathlib.Path, present: set[str]) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        named = set(cast("dict[str, str]", json.loads(index.read_bytes())["weight_map"]).values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoadFailed(BAD, f"{index}: cannot be read: {error}") from error
    missing = sorted(named - present)
    if missing:
        raise LoadFailed(BAD, f"{folder}: {len(missing)} weight files are missing: {missing[0]}.")


def cache_bytes(geometry: Geometry, *, tokens: int, cache_format: str) -> int:
    """Device bytes of a cache; quantised ones keep one 16-bit layer as scratch."""
    elements = 2 * geometry.kv_heads * geometry.head_dim * tokens
    whole = int(geometry.layers * elements * BYTES_PER_ELEMENT[cache_format])
    return whole if cache_format == "fp16" else whole + 2 * elements


def footprint(
    weights: TensorSizes,
    geometry: Geometry,
    *,
    cache_tokens: int,
    cache_format: str,
    max_input_tokens: int,
    devices: int = 1,
) -> LoadEstimate:
    """Estimates the memory of a load.

    Args:
        weights: headers of the folder.
        geometry: its sizes.
        cache_tokens: of all sequences together.
        cache_format: a key of BYTES_PER_ELEMENT.
        max_input_tokens: longest input of one forward pass.
        devices: over how many the model is split.
    """
    on_device = weights.total - (0 if weights.is_head_shared else weights.embedding)
    scratch = (
        _library_scratch(geometry, max_input_tokens, is_quantised=bool(weights.quantisation))
        + _activations(geometry, max_input_tokens)
        + 4 * geometry.head_dim * geometry.context  # tables of the rotary embedding
        + ATTENTION_BYTES
        + (GRAPH_BYTES if weights.quantisation else 0)
    )
    head_alone = 0
    if devices > 1 and not weights.quantisation:
        # Where the last device holds no attention layer, the head's output makes the buffer there.
        head_alone = _library_scratch(geometry, max_input_tokens, is_quantised=True)
    return LoadEstimate(
        weights=on_device,
        host=weights.embedding,
        cache=cache_bytes(geometry, tokens=cache_tokens, cache_format=cache_format),
        scratch=scratch * devices + head_alone,
        context=CONTEXT_BYTES * devices,
    )


def _library_scratch(geometry: Geometry, tokens: int, *, is_quantised: bool) -> int:
    """The buffer that every module of a device shares: what the greediest of them wants.

    The head is one of them: where it is quantised, so many of its weights are unpacked at once.
    """
    width, inner = geometry.hidden, max(geometry.hidden, geometry.intermediate)
    heads = geometry.heads * geometry.head_dim
    attention = 2 * tokens * max(heads, width) + _unpacked(width * max(heads, width))
    feed_forward = 2 * tokens * (2 * width + 2 * inner) + _unpacked(width * inner)
    padded = -(-geometry.vocabulary // _HEAD_COLUMNS) * _HEAD_COLUMNS
    head = _unpacked(width * padded) if is_quantised else 0
    return max(attention, feed_forward, head) + 4 * _ALIGNMENT


def _unpacked(elements: int) -> int:
    return 2 * min(elements, _MAX_DEQUANT_ELEMENTS)


def _activations(geometry: Geometry, tokens: int) -> int:
    """What one pass allocates beside the shared buffer, at its widest place."""
    attention = 2 * tokens * geometry.head_dim * (2 * geometry.heads + 2 * geometry.kv_heads)
    if geometry.has_softcap:  # `dense.attention` holds three matrices of scores in float32
        attention += 3 * 4 * geometry.heads * tokens * tokens
    feed_forward = 3 * 2 * tokens * geometry.intermediate
    states = 2 * 2 * tokens * geometry.hidden
    return states + max(attention, feed_forward)
