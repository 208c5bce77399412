"""Reads the facts at the head of a GGUF file, without the tensors' data and without an engine.

Source: ggml `docs/gguf.md`, version 3.
"""

from __future__ import annotations

import dataclasses
import mmap
import pathlib
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from services.neuron.weights import gguf_limits, labels, untrusted
from services.neuron.weights.gguf_reader import BadGgufError, Reader

_MAGIC: Final = b"GGUF"
_POINTER: Final = b"vers"  # version https://git-lfs…
_VERSIONS: Final = frozenset({2, 3})
_MOST_KEYS: Final = 10_000
_MOST_TENSORS: Final = 1 << 16
_ALIGNMENT: Final = "general.alignment"
_USUAL_ALIGNMENT: Final = 32
_PARTS: Final = "split.count"
# The vocabulary begins here: it is long, and nothing in it is wanted.
_VOCABULARY: Final = "tokenizer."
_TEMPLATE: Final = "tokenizer.chat_template"
# What `general.type` calls files that go with a model.
_COMPANIONS: Final = {
    "mmproj": "a vision projector",
    "adapter": "a LoRA adapter",
    "imatrix": "an importance matrix",
}
_PROJECTOR_ARCHITECTURE: Final = "clip"
_RANK: Final = 4  # enum llama_pooling_type

Tensors: TypeAlias = tuple[tuple[str, int], ...]


class NoModelError(BadGgufError):
    """A GGUF file that is whole, and is no model that can be served."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """What a file says of its model, and of itself.

    Attributes:
        architecture: `llama`, `qwen2`, …
        max_context_tokens: as trained; 0 where it does not say.
        cache_bytes_per_token: of keys and values in fp16; 0 where it cannot be told.
        layers: blocks; 0 where it does not say.
        is_embedder: it pools; it does not generate.
        quantization: `Q4_K_M`; empty where it does not say.
        parameter_size: as it calls it, `135M`, `8x7B`; empty where it does not.
        has_chat_template: it says how a chat is written.
        parts: of the model, where this is one of several; else 1.
        whole_bytes: as long as the file is at least, once nothing of it is missing.
        tensors: names and bytes of those in this file.
    """

    architecture: str
    max_context_tokens: int
    cache_bytes_per_token: int
    is_embedder: bool
    layers: int = 0
    quantization: str = ""
    parameter_size: str = ""
    has_chat_template: bool = False
    parts: int = 1
    whole_bytes: int = 0
    tensors: Tensors = ()


def read(path: pathlib.Path) -> GgufHeader:
    """The header of a file.

    Raises:
        BadGgufError: it is no GGUF file, is cut off within its header, or goes with a model and is
            none itself.
        OSError: it cannot be read.
    """
    facts, least_bytes, tensors = _head(path)
    try:
        return dataclasses.replace(_header(facts, least_bytes), tensors=tensors)
    except NoModelError as error:
        raise BadGgufError(f"{path.name} cannot be served: {error}") from error
    except ValueError as error:
        raise BadGgufError(f"{path.name} is no GGUF file: {error}") from error


def part(path: pathlib.Path) -> tuple[int, Tensors]:
    """Reads a later part of a split model: its least possible size in bytes, and its tensors.

    Raises: as `read`.
    """
    _, least_bytes, tensors = _head(path)
    return least_bytes, tensors


def _head(path: pathlib.Path) -> tuple[dict[str, Any], int, Tensors]:
    try:
        with (
            untrusted.opened(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return _read(Reader(mapped))
    except (struct.error, EOFError) as error:
        raise BadGgufError(f"{path.name} is cut off within its header") from error
    except ValueError as error:  # an empty file cannot be mapped; bad UTF-8 is no name
        raise BadGgufError(f"{path.name} is no GGUF file: {error}") from error


def _read(reader: Reader) -> tuple[dict[str, Any], int, Tensors]:
    """The facts of a file, how long it is at least, and its tensors."""
    magic = reader.take(4)
    if magic == _POINTER:
        raise BadGgufError("it is a pointer of Git LFS; `git lfs pull` fetches the file itself")
    if magic != _MAGIC:
        raise BadGgufError("it does not begin with GGUF")
    version: int = reader.scalar("<I")
    if version not in _VERSIONS:
        raise BadGgufError(f"version {version} is not known")
    tensors: int = reader.scalar("<Q")
    keys: int = reader.scalar("<Q")
    if keys > _MOST_KEYS or tensors > _MOST_TENSORS:
        raise BadGgufError(f"{keys} keys and {tensors} tensors cannot be true")
    facts: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        kind: int = reader.scalar("<I")
        if key == _TEMPLATE:
            facts[key] = reader.skip_text(kind)
        elif key.startswith(_VOCABULARY):
            facts[key] = True
            reader.skip_value(kind)
        else:
            facts[key] = reader.value(kind)
    found = [reader.tensor() for _ in range(tensors)]
    alignment = untrusted.whole(_ALIGNMENT, facts.get(_ALIGNMENT, _USUAL_ALIGNMENT)) or 1
    begin = -(-reader.at // alignment) * alignment
    end = begin + max(end for _, _, end in found) if found else reader.at
    return facts, end, tuple((name, size) for name, size, _ in found)


def _header(facts: dict[str, Any], least_bytes: int) -> GgufHeader:
    architecture = untrusted.word(facts.get("general.architecture"))
    if not architecture:
        raise BadGgufError("it names no architecture")

    kind = untrusted.word(facts.get("general.type"))
    companion = _COMPANIONS.get("mmproj" if architecture == _PROJECTOR_ARCHITECTURE else kind)
    if companion is not None:
        raise NoModelError(f"it is {companion}, which is no model by itself")
    pooling = facts.get(f"{architecture}.pooling_type", 0)
    if pooling == _RANK:
        raise NoModelError("it is a reranker, which makes neither text nor vectors")
    if not (isinstance(pooling, int) and 0 <= pooling < _RANK):
        raise BadGgufError("how it pools is not known")

    def fact(name: str) -> int:
        value = facts.get(f"{architecture}.{name}", 0)
        values: list[Any] = value if isinstance(value, list) else [value]
        return max((untrusted.whole(name, one) for one in values), default=0)

    gguf_limits.refuse_fatal(architecture, facts, fact)
    heads = fact("attention.head_count")
    size = fact("embedding_length") // heads if heads else 0
    width = (fact("attention.key_length") or size) + (fact("attention.value_length") or size)
    cache = 2 * _cached_heads(facts, architecture, fact) * width
    return GgufHeader(
        architecture=architecture,
        max_context_tokens=fact("context_length"),
        cache_bytes_per_token=untrusted.whole("its cache", cache, most=untrusted.MOST_BYTES),
        layers=fact("block_count"),
        is_embedder=f"{architecture}.pooling_type" in facts,
        quantization=labels.of_gguf(facts.get("general.file_type", -1)),
        parameter_size=untrusted.word(facts.get("general.size_label")),
        has_chat_template=bool(facts.get(_TEMPLATE)),
        parts=untrusted.whole(_PARTS, facts.get(_PARTS, 0)) or 1,
        whole_bytes=least_bytes,
    )


def _cached_heads(facts: dict[str, Any], architecture: str, fact: Callable[[str], int]) -> int:
    """Heads of all layers together that keep keys and values; recurrent layers keep none."""
    told = facts.get(f"{architecture}.attention.head_count_kv")
    if isinstance(told, list) and told:
        by_layer: list[Any] = told
        return sum(untrusted.whole("attention.head_count_kv", one) for one in by_layer)
    layers = fact("block_count") // (fact("full_attention_interval") or 1)
    return layers * (fact("attention.head_count_kv") or fact("attention.head_count"))
