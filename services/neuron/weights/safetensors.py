"""Reads the headers of safetensors files, without the tensors and without an engine.

Source: the format's README: eight bytes of length, then JSON of name to type, shape and offsets.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Final

import msgspec

# As the format's own library has it.
_LONGEST_BYTES: Final = 100 << 20


class _Entry(msgspec.Struct):
    """One tensor; the entry of the file's own metadata has no shape."""

    shape: list[int] | None = None


def count(files: Sequence[pathlib.Path]) -> int:
    """Numbers in all tensors of some files. Blocks.

    0 where a header cannot be read: what is wrong with it is for the engine to say.

    Raises:
        OSError: a file cannot be read.
    """
    total = 0
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_BYTES:
                return 0
            try:
                entries = msgspec.json.decode(file.read(length), type=dict[str, _Entry])
            except msgspec.MsgspecError:
                return 0
        total += sum(math.prod(entry.shape) for entry in entries.values() if entry.shape)
    return total
