"""Reads the facts at the head of a GGUF file, without the tensors and without an engine.

Source: ggml `docs/gguf.md`, version 3.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import pathlib
import struct
from typing import Any, BinaryIO, Final

from services.neuron.weights import distrust, labels

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = frozenset({2, 3})
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_MOST_KEYS: Final = 10_000
_LONGEST_STRING: Final = 1 << 20
_MOST_ITEMS: Final = 1 << 20
_DEEPEST: Final = 4


class BadGgufError(ValueError):
    """The file is no GGUF file, or a broken one; the message says how."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """What a file says before its vocabulary.

    Attributes:
        architecture: `llama`, `qwen2`, …
        max_context_tokens: as trained; 0 where it does not say.
        cache_bytes_per_token: of keys and values in fp16; 0 where it cannot be told.
        layers: blocks; 0 where it does not say.
        is_embedder: it pools; it does not generate.
        quantization: `Q4_K_M`; empty where it does not say.
        parameter_size: as it calls it, `135M`, `8x7B`; empty where it does not.
    """

    architecture: str
    max_context_tokens: int
    cache_bytes_per_token: int
    is_embedder: bool
    layers: int = 0
    quantization: str = ""
    parameter_size: str = ""


def read(path: pathlib.Path) -> GgufHeader:
    """The header of a file.

    Raises:
        BadGgufError: it is no GGUF file or is cut off within its header.
        OSError: it cannot be read.
    """
    try:
        with (
            distrust.opened(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return _header(_facts(_Reader(mapped)))  # type: ignore[arg-type]
    except (struct.error, EOFError) as error:
        raise BadGgufError(f"{path.name} is cut off within its header") from error
    except ValueError as error:  # an empty file cannot be mapped; bad UTF-8 is no name
        raise BadGgufError(f"{path.name} is no GGUF file: {error}") from error


def _facts(reader: _Reader) -> dict[str, Any]:
    if reader.take(4) != _MAGIC:
        raise BadGgufError("it does not begin with GGUF")
    version: int = reader.scalar("<I")
    if version not in _VERSIONS:
        raise BadGgufError(f"version {version} is not known")
    reader.scalar("<Q")  # number of tensors
    count: int = reader.scalar("<Q")
    if count > _MOST_KEYS:
        raise BadGgufError(f"{count} keys cannot be true")
    facts: dict[str, Any] = {}
    for _ in range(count):
        key = reader.string()
        # The vocabulary comes last and is long; nothing behind it is wanted here.
        if key.startswith("tokenizer."):
            break
        facts[key] = reader.value(reader.scalar("<I"))
    return facts


def _header(facts: dict[str, Any]) -> GgufHeader:
    architecture = distrust.word(facts.get("general.architecture"))
    if not architecture:
        raise BadGgufError("it names no architecture")

    def fact(name: str) -> int:
        value = facts.get(f"{architecture}.{name}", 0)
        values: list[Any] = value if isinstance(value, list) else [value]
        return max((distrust.whole(name, one) for one in values), default=0)

    heads = fact("attention.head_count")
    kv_heads = fact("attention.head_count_kv") or heads
    size = fact("embedding_length") // heads if heads else 0
    width = (fact("attention.key_length") or size) + (fact("attention.value_length") or size)
    cache = 2 * fact("block_count") * kv_heads * width
    return GgufHeader(
        architecture=architecture,
        max_context_tokens=fact("context_length"),
        cache_bytes_per_token=distrust.whole("its cache", cache, most=distrust.MOST_BYTES),
        layers=fact("block_count"),
        is_embedder=f"{architecture}.pooling_type" in facts,
        quantization=labels.of_gguf(facts.get("general.file_type", -1)),
        parameter_size=distrust.word(facts.get("general.size_label")),
    )


class _Reader:
    """Walks through the bytes; asking for more than there are is an EOFError."""

    def __init__(self, data: BinaryIO | io.BytesIO) -> None:
        self._data = data
        self._patience = distrust.Patience()
        self._items = 0

    def take(self, size: int) -> bytes:
        self._patience.check()
        taken = self._data.read(size)
        if len(taken) != size:
            raise EOFError
        return taken

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        length: int = self.scalar("<Q")
        if length > _LONGEST_STRING:
            raise BadGgufError(f"a string of {length} bytes cannot be true")
        return self.take(length).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner: int = self.scalar("<I")
            length: int = self.scalar("<Q")
            self._items += length
            if self._items > _MOST_ITEMS or depth > _DEEPEST:
                raise BadGgufError("so long or so deep a list cannot be true")
            return [self.value(inner, depth + 1) for _ in range(length)]
        if kind not in _SCALARS:
            raise BadGgufError(f"type {kind} is not known")
        return self.scalar(_SCALARS[kind])
