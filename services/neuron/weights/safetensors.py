"""Reads the headers of safetensors files, without the tensors and without an engine.

Source: the format's README: eight bytes of length, then JSON of name to type, shape and offsets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, BinaryIO, Final

import msgspec

from services.neuron.weights import untrusted

_LENGTH_BYTES: Final = 8
# As the format's own library has it.
_LONGEST_BYTES: Final = 100 << 20
_METADATA: Final = "__metadata__"
_INDEX: Final = "model.safetensors.index.json"
_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Shape = Annotated[tuple[_Size, ...], msgspec.Meta(max_length=16)]


class BadSafetensorsError(ValueError):
    """The file is no safetensors file, or a broken one; the message says how."""


class Tensor(msgspec.Struct, frozen=True):
    """One entry of a header.

    Attributes:
        dtype: the numbers' type in the format's words: `F16`, `BF16`, `I32`.
        shape: numbers along each dimension.
        data_offsets: first byte and the byte behind the last, counted from the end of the header.
    """

    dtype: str
    shape: _Shape
    data_offsets: tuple[_Size, _Size]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in the file."""
        begin, end = self.data_offsets
        return end - begin


class _Index(msgspec.Struct):
    """Which file holds which tensor of a model in several files."""

    weight_map: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What stands before the tensors of a file.

    Attributes:
        tensors: by name, in the file's order.
        data_begin: where in the file the first tensor's bytes may begin.
        file_bytes: size of the file as it is; a whole one has `expected_bytes`.
    """

    tensors: Mapping[str, Tensor]
    data_begin: int
    file_bytes: int

    @property
    def expected_bytes(self) -> int:
        """Size of the file if it ends with the last tensor, as it has to."""
        ends = (tensor.data_offsets[1] for tensor in self.tensors.values())
        return self.data_begin + max(ends, default=0)


def read(path: pathlib.Path) -> SafetensorsHeader:
    """The header of a file. Blocks. Whether the tensors are there is not looked at.

    Raises:
        BadSafetensorsError: it is no safetensors file or is cut off within its header, or its
            header cannot be read.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _LENGTH_BYTES:
            raise BadSafetensorsError(f"cut short ({size} bytes)")
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > min(size - _LENGTH_BYTES, _LONGEST_BYTES):
            raise BadSafetensorsError(f"not a safetensors file, or cut short ({size} bytes)")
        text = file.read(length)
    try:
        entries = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        entries.pop(_METADATA, None)
        tensors = {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadSafetensorsError(f"its header cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if tensor.size_bytes < 0:
            raise BadSafetensorsError(f"the offsets of {name} are out of order")
    return SafetensorsHeader(tensors, _LENGTH_BYTES + length, size)


def count(files: Sequence[pathlib.Path]) -> int:
    """Numbers in all tensors of some files. Blocks.

    0 where a header cannot be read: what is wrong with it is for the engine to say.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        headers = [read(path) for path in files]
    except BadSafetensorsError:
        return 0
    tensors = [tensor for header in headers for tensor in header.tensors.values()]
    numbers = sum(math.prod(tensor.shape) for tensor in tensors)
    return numbers if numbers <= untrusted.MOST_BYTES else 0


def missing(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> str:
    """Says which file of a model is missing or incomplete, in a sentence; empty if none is.

    Blocks. A file whose header cannot be read is whole: what is wrong with it is for the engine.

    Raises:
        OSError: a file cannot be read.
    """
    index = folder / _INDEX
    if index.is_file():
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            text = untrusted.text_of(index, most_bytes=_LONGEST_BYTES)
            listed = msgspec.json.decode(text, type=_Index)
            absent = sorted(set(listed.weight_map.values()) - {file.name for file in files})
            if absent:
                return f"{absent[0]} is missing"
    for file in files:
        with contextlib.suppress(BadSafetensorsError):
            header = read(file)
            if header.file_bytes < header.expected_bytes:
                return f"{file.name} has {header.file_bytes} of {header.expected_bytes} bytes"
    return ""


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Generator[BinaryIO]:
    try:
        with untrusted.opened(path) as file:
            yield file
    except untrusted.UntrustedFileError as error:
        raise BadSafetensorsError(str(error)) from error
