"""One saved sequence as a file: its tokens, then the engine's own bytes, with a checksum.

Layout: magic, length of the header (u32, little endian), the header in msgpack, the states one
after the other.
"""

from __future__ import annotations

import os
import pathlib
import struct
import zlib
from typing import BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

_MAGIC: Final = b"cortexkv"
_LENGTH: Final = struct.Struct("<I")
_MOST_HEADER_BYTES: Final = 64 << 20
_MOST_FIXED_BYTES: Final = 128  # of a header, but for tokens and checkpoints
_MOST_CHECKPOINT_BYTES: Final = 32


class BadSequenceFileError(Exception):
    """The file is not what was written: cut, changed, or of another layout."""


class SavedSequence(msgspec.Struct, frozen=True):
    """What the cache of one sequence held.

    Attributes:
        tokens: (count,) int32, in order.
        state: the engine's copy of the sequence.
        checkpoints: states after so many of its first tokens, where it cannot be cut without.
    """

    tokens: npt.NDArray[np.int32]
    state: bytes
    checkpoints: tuple[tuple[int, bytes], ...] = ()

    @property
    def size_bytes(self) -> int:
        """No fewer than its file has."""
        states = len(self.state) + sum(len(state) for _, state in self.checkpoints)
        head = _MOST_FIXED_BYTES + _MOST_CHECKPOINT_BYTES * len(self.checkpoints)
        return states + self.tokens.nbytes + head


class SequenceHead(msgspec.Struct, frozen=True):
    """What a file says of itself before its states.

    Attributes:
        tokens: little-endian int32.
        state_bytes: length of the state.
        checkpoints: tokens and length of each checkpoint.
        checksum: CRC-32 of tokens and states.
    """

    tokens: bytes
    state_bytes: int
    checkpoints: tuple[tuple[int, int], ...]
    checksum: int

    @property
    def token_ids(self) -> npt.NDArray[np.int32]:
        """(count,) int32."""
        return np.frombuffer(self.tokens, dtype="<i4")

    @property
    def lengths(self) -> tuple[int, ...]:
        """After how many tokens there are checkpoints, rising."""
        return tuple(length for length, _ in self.checkpoints)


def write(path: pathlib.Path, sequence: SavedSequence) -> None:
    """Writes a file that is there whole or not at all; only its owner can read it.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    states = [sequence.state, *(state for _, state in sequence.checkpoints)]
    tokens = sequence.tokens.astype("<i4").tobytes()
    head = SequenceHead(
        tokens,
        len(sequence.state),
        tuple((length, len(state)) for length, state in sequence.checkpoints),
        _checksum(tokens, states),
    )
    packed = msgspec.msgpack.encode(head)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([_MAGIC, _LENGTH.pack(len(packed)), packed, *states])
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_head(path: pathlib.Path) -> SequenceHead:
    """What a file says of itself.

    Raises:
        BadSequenceFileError: it is no such file.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _head(file)


def read(path: pathlib.Path) -> SavedSequence:
    """The whole sequence, as it was saved.

    Raises:
        BadSequenceFileError: it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = _head(file)
        sizes = [head.state_bytes, *(size for _, size in head.checkpoints)]
        if os.fstat(file.fileno()).st_size != file.tell() + sum(sizes):
            raise BadSequenceFileError(f"{path.name} has another length than it says.")
        states = [file.read(size) for size in sizes]
    if _checksum(head.tokens, states) != head.checksum:
        raise BadSequenceFileError(f"{path.name} was changed after it was written.")
    checkpoints = tuple(zip(head.lengths, states[1:], strict=True))
    return SavedSequence(head.token_ids, states[0], checkpoints)


def _head(file: BinaryIO) -> SequenceHead:
    magic = file.read(len(_MAGIC))
    size = file.read(_LENGTH.size)
    if magic != _MAGIC or len(size) != _LENGTH.size:
        raise BadSequenceFileError("It does not begin as a saved sequence does.")
    (length,) = _LENGTH.unpack(size)
    if length > _MOST_HEADER_BYTES:
        raise BadSequenceFileError("Its header is too long.")
    try:
        head = msgspec.msgpack.decode(file.read(length), type=SequenceHead)
    except msgspec.MsgspecError as error:
        raise BadSequenceFileError("Its header cannot be read.") from error
    if len(head.tokens) % 4 or head.state_bytes < 0 or any(s < 0 for _, s in head.checkpoints):
        raise BadSequenceFileError("Its header makes no sense.")
    return head


def _checksum(tokens: bytes, states: list[bytes]) -> int:
    checksum = zlib.crc32(tokens)
    for state in states:
        checksum = zlib.crc32(state, checksum)
    return checksum
