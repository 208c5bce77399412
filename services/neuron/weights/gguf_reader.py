"""Walks through the bytes of a GGUF file's head: keys, values, and what the tensors take.

Source: ggml `docs/gguf.md`, version 3; sizes of blocks: `ggml/src/ggml-common.h`.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from services.neuron.weights import untrusted

_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_LONGEST_STRING: Final = 1 << 20
_MOST_ITEMS: Final = 1 << 20
# What is only walked over: the largest vocabularies have a million tokens, merges and scores.
_MOST_SKIPPED: Final = 1 << 24
_DEEPEST: Final = 4
# Of a text that nobody wants, so much is looked at.
_MOST_BLANKS: Final = 4096
_MOST_DIMENSIONS: Final = 8
_LENGTH: Final = struct.Struct("<Q")
BLOCKS: Final[Mapping[int, tuple[int, int]]] = MappingProxyType(
    {
        0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
        9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),
        14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98),
        19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1),
        25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
        35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
    }
)  # fmt: skip
"""Numbers in a block, and its bytes, by ggml's number of the type."""


class BadGgufError(ValueError):
    """The file is no GGUF file, or a broken one; the message says how."""


class Reader:
    """Walks through the bytes; asking for more than there are is an EOFError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)
        self._deadline = untrusted.ReadDeadline()
        self._items = 0

    @property
    def at(self) -> int:
        """Bytes that were walked over so far."""
        return self._at

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self._deadline.check()
        begin = self._at
        self._skip(size)
        return self._data[begin : self._at]

    def scalar(self, code: str) -> Any:
        """The next number, by its code of `struct`."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        """The next text."""
        length: int = self.scalar("<Q")
        if length > _LONGEST_STRING:
            raise BadGgufError(f"a string of {length} bytes cannot be true")
        return self.take(length).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        """The next value of a kind."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self._array(depth, most=_MOST_ITEMS)
            return [self.value(inner, depth + 1) for _ in range(length)]
        if kind not in _SCALARS:
            raise BadGgufError(f"type {kind} is not known")
        return self.scalar(_SCALARS[kind])

    def skip_value(self, kind: int, depth: int = 0) -> None:
        """Walks over the next value of a kind, which may be a vocabulary."""
        if kind == _STRING:
            self._skip_strings(1)
        elif kind == _ARRAY:
            inner, length = self._array(depth, most=_MOST_SKIPPED)
            if inner == _STRING:
                self._skip_strings(length)
            elif inner in _SCALARS:
                self._skip(length * struct.calcsize(_SCALARS[inner]))
            else:
                for _ in range(length):
                    self.skip_value(inner, depth + 1)
        elif kind in _SCALARS:
            self._skip(struct.calcsize(_SCALARS[kind]))
        else:
            raise BadGgufError(f"type {kind} is not known")

    def skip_text(self, kind: int) -> bool:
        """Walks over the next value; returns whether it is a text with something in it."""
        begin = self._at
        self.skip_value(kind)
        if kind != _STRING:
            return False
        return bool(self._data[begin + _LENGTH.size : self._at][:_MOST_BLANKS].strip())

    def tensor(self) -> tuple[str, int, int]:
        """Walks over the next tensor's entry.

        Returns: its name, its bytes, and where its data end, counted from where all data begin; of
            a type that is not known 0 bytes.
        """
        name = self.string()
        dimensions: int = self.scalar("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise BadGgufError(f"a tensor of {dimensions} dimensions cannot be true")
        count = math.prod(self.scalar("<Q") for _ in range(dimensions))
        numbers, size = BLOCKS.get(self.scalar("<I"), (1, 0))
        offset: int = self.scalar("<Q")
        taken = count // numbers * size
        end = untrusted.whole("the size of a tensor", offset + taken, most=untrusted.MOST_BYTES)
        return name, taken, end

    def _array(self, depth: int, *, most: int) -> tuple[int, int]:
        inner: int = self.scalar("<I")
        length: int = self.scalar("<Q")
        self._items += length
        if self._items > most or depth > _DEEPEST:
            raise BadGgufError("so long or so deep a list cannot be true")
        return inner, length

    def _skip(self, size: int) -> None:
        if size > self._end - self._at:
            raise EOFError
        self._at += size

    def _skip_strings(self, count: int) -> None:
        """Walks over texts; a vocabulary has so many that nothing is called for one."""
        self._deadline.check()
        at, last, data, unpack = self._at, self._end - 8, self._data, _LENGTH.unpack_from
        for number in range(count):
            if at > last:
                raise EOFError
            at += 8 + unpack(data, at)[0]
            if not number & 0xFFFF:
                self._deadline.check()
        if at > self._end:
            raise EOFError
        self._at = at
